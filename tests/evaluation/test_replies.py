"""Any JSON that a child sends is what the runner would have said, or is refused as forged. Nothing else."""

import json
import math
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kbopt.core import codec
from kbopt.core.evaluations import KernelBenchVerdict
from kbopt.evaluation.judge.answers import Refused, notes_on_form, require_form, require_separate
from kbopt.evaluation.judge.link import CandidateRaised, Link, SourceRejected
from kbopt.evaluation.judge.reference import Output
from kbopt.evaluation.judge.replies import batch_done_of, called_of, reply_of, times_of
from kbopt.evaluation.kernelbench.verdicts import kernelbench_from
from kbopt.evaluation.messages import Done, Raised
from kbopt.evaluation.sandbox.children import crash_from
from kbopt.evaluation.sandbox.forks import Ended
from kbopt.evaluation.transport.channel import Channel
from kbopt.evaluation.transport.layout import TensorSpec, bytes_at, copy_elements, is_separate
from kbopt.evaluation.transport.untrusted import CandidateForged, clean, failure_in, finite, one_line
from kbopt.evaluation.worker_messages import (
    Call,
    CallOutput,
    CountFailures,
    FailedAllocations,
    Free,
    Instantiated,
    Kernels,
    Opened,
    Place,
    Request,
    ToWorker,
    request_in,
)

SPEC = ["float32", [2, 2], [2, 1]]
PLACE = [4096, SPEC, "cpu", "", 0]
RAISED = {"type": "Raised", "kind": "ValueError", "text": "no", "frames": "  line 1"}
REFUSED = {"type": "SourceRefused", "reason": "no ModelNew"}
OUTPUT = [{"tensor": 0}, [PLACE], ""]
SEEN = {"type": "Seen", "torch_ops": ["add"], "custom_kernel": True, "arithmetic": ["fp32"]}
GOOD: dict[str, Any] = {
    "opened": {"type": "Opened", "base": 4096},
    "done": {"type": "Done"},
    "instantiated": {
        "type": "Instantiated",
        "takes_weights": True,
        "overwrites": True,
        "misfits": "no weight",
    },
    "called": {"type": "Called", "outputs": [OUTPUT], "ns": [5], "queued_ns": 5, "seen": SEEN},
    "batch": {"type": "BatchDone", "ns": [5]},
    "kernels": {"type": "Kernels", "kernels": [{"name": "gemm", "calls": 1, "us": 2.5}]},
    "failed": {"type": "FailedAllocations", "count": 3},
    "raised": RAISED,
    "refused": REFUSED,
    "verdict": {
        "type": "KernelBenchVerdict",
        "compiled": True,
        "correctness": True,
        "runtime": 0.5,
        "runtime_stats": {"mean": 0.5, "num_trials": 3},
        "metadata": {"hardware": "cpu", "max_difference": ["1.0"]},
    },
}
DECODERS: dict[str, Callable[[Any], Any]] = {
    "opened": partial(reply_of, Opened),
    "done": partial(reply_of, Done),
    "instantiated": partial(reply_of, Instantiated),
    "called": lambda raw: [called := called_of(raw, 1), times_of(called.ns, 1)],
    "batch": lambda raw: batch_done_of(raw, 1),
    "kernels": partial(reply_of, Kernels),
    "failed": partial(reply_of, FailedAllocations),
    "raised": failure_in,
    "refused": failure_in,
    "verdict": kernelbench_from,
}
numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([2**63, -(2**63), 10**400, -(10**400), math.inf, -math.inf, math.nan, 1e308, 5e-324]),
)
texts = st.text(st.characters(), max_size=30)  # Lone surrogates are among them.
json_values = st.recursive(
    st.none()
    | st.booleans()
    | numbers
    | texts
    | st.sampled_from(["float32", "complex128", "uint64", "cuda"]),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=20,
)


NAMES = sorted({name for reply in GOOD.values() for name in reply})


@st.composite
def replies(draw: st.DrawFn) -> dict[str, Any]:
    """Good replies with one thing in them, however deep, replaced by anything."""
    reply = json.loads(json.dumps(GOOD))
    at: Any = reply
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or not at[key] or draw(st.booleans()):
            at[key] = draw(json_values)
            return reply
        at = at[key]


def text_of_refusal(decode: Callable[[dict[str, Any]], Any], reply: dict[str, Any]) -> str:
    """What is said of a forged reply; of one that decodes, what it decodes to."""
    try:
        return repr(decode(reply))
    except CandidateForged as error:
        return str(error)


@pytest.mark.parametrize("name", DECODERS)
def test_what_the_runner_says_is_understood(name: str):
    assert DECODERS[name](GOOD[name]) is not None


@settings(max_examples=300, deadline=None)
@given(reply=replies())
def test_any_reply_decodes_or_is_forged(reply: dict[str, Any]):
    for name, decode in DECODERS.items():
        assert text_of_refusal(decode, reply[name]).isprintable()
    verdict = kernelbench_from(reply["verdict"])
    assert codec.decode(KernelBenchVerdict, json.loads(json.dumps(codec.encode(verdict)))) == verdict


@settings(max_examples=300, deadline=None)
@given(reply=st.dictionaries(st.sampled_from(NAMES), json_values) | json_values)
def test_so_does_any_json(reply: Any):
    for name, decode in DECODERS.items():
        for raw in (reply, {**reply, "type": GOOD[name]["type"]} if isinstance(reply, dict) else reply):
            assert text_of_refusal(decode, raw).isprintable()
    json.dumps(codec.encode(kernelbench_from(reply))).encode()


@given(text=st.text(st.characters(), max_size=200), most=st.integers(0, 300))
def test_text_can_be_stored_and_printed_afterwards(text: str, most: int):
    plain = clean(text, most)
    assert all(c.isprintable() or c in "\n\t" for c in plain)
    plain.encode()
    assert "\n" not in one_line(text, most)
    assert clean(plain, len(plain)) == plain


def test_what_a_terminal_obeys_is_shown_as_it_is_written():
    forged = "no\x1b[2K\rmeasured, 30x\u202e\x9b1m\udc80"

    assert clean(forged) == "no\\x1b[2K\nmeasured, 30x\\u202e\\x9b1m\\udc80"
    raised = failure_in(RAISED | {"kind": "A\nB\x07", "text": "no\nmeasured, 30x", "frames": "measured"})
    assert isinstance(raised, Raised)
    assert str(raised) == "A B\\x07: no\n    measured, 30x"
    assert raised.frames == "  measured"
    assert len(clean("x" * 10**7)) == 2000


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 10**400, True, "1", None, [1.0]])
def test_no_number_to_calculate_with(value: Any):
    assert finite(value) is None
    assert kernelbench_from({**GOOD["verdict"], "runtime": value}).runtime == -1.0
    with pytest.raises(CandidateForged):
        reply_of(Kernels, {"kernels": [{"name": "gemm", "calls": 1, "us": value}]})


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ([4098, SPEC, "cpu", "", 0], "between two places"),
        ([4100, ["float64", [2], [1]], "cpu", "", 0], "between two places"),
        ([4096, ["float32", [2], [2**47]], "cpu", "", 0], "more than a process has"),
        ([4096, ["float32", [2**40, 2**40], [1, 1]], "cpu", "", 0], "more than a process has"),
        ([2**63 - 4, ["float32", [2], [1]], "cpu", "", 0], "more than a process has"),
        ([-8, SPEC, "cpu", "", 0], "an address"),
        ([True, SPEC, "cpu", "", 0], "outputs that is none"),
        ([4096, ["float33", [2], [1]], "cpu", "", 0], "no tensor looks like"),
        ([4096, ["float32", [2.0], [1]], "cpu", "", 0], "outputs that is none"),
        ([4096, ["float32", {}, []], "cpu", "", 0], "outputs that is none"),
        ([4096, SPEC, "cpu", "", -1], "an offset"),
        ([4096, SPEC, None, "", 0], "outputs that is none"),
        ([4096, SPEC, "cpu", ""], "outputs that is none"),
    ],
)
def test_a_place_that_no_tensor_has(place: list[Any], words: str):
    with pytest.raises(CandidateForged, match=words):
        called_of({"outputs": [[{"tensor": 0}, [place], ""]]}, 1)


@pytest.mark.parametrize("num_outputs", [0, 2])
def test_an_answer_has_an_output_for_each_call(num_outputs: int):
    with pytest.raises(CandidateForged, match=f"{num_outputs} outputs of 1 calls"):
        called_of({"outputs": [OUTPUT] * num_outputs}, 1)


def test_nesting_that_can_be_read_and_not_printed_is_forged():
    nested = [0]
    for depth in range(400, 1000):
        with suppress(RecursionError):
            nested = json.loads("[" * depth + "]" * depth)
        with pytest.raises(CandidateForged):
            called_of({"outputs": [[0, [[4096, SPEC, nested, "", 0]], ""]]}, 1)


def test_a_complex_tensor_may_lie_where_its_parts_may():
    place = [4100, ["complex64", [2], [1]], "cpu", "", 0]

    called = called_of({"outputs": [[0, [place], ""]]}, 1)

    assert called.outputs[0].places[0].span == range(4100, 4116)


def test_descriptors_that_a_candidate_sends_are_closed():
    ours, theirs = socket.socketpair()
    link = Link(ours, os.open(os.devnull, os.O_RDWR), 10.0)
    sender = Channel(theirs)
    null = os.open(os.devnull, os.O_RDONLY)
    before = len(list(Path("/proc/self/fd").iterdir()))

    for _ in range(50):
        sender.send({"id": 1}, [null] * 8)
        link._next()

    assert len(list(Path("/proc/self/fd").iterdir())) == before
    link.close()
    sender.close()
    os.close(null)


@pytest.mark.parametrize(("content", "error"), [(RAISED, CandidateRaised), (REFUSED, SourceRejected)])
def test_a_link_raises_what_a_reply_tells_of(content: dict[str, Any], error: type[Exception]):
    ours, theirs = socket.socketpair()
    link = Link(ours, os.open(os.devnull, os.O_RDWR), 10.0)
    sender = Channel(theirs)
    number = link.send(Free())
    sender.send({"id": number, "content": content})

    with pytest.raises(error):
        link.receive(number)
    link.close()
    sender.close()


def test_a_signal_without_a_name_has_ended_a_process_as_well():
    assert crash_from(Ended(signal=9)).how == "SIGKILL"
    assert crash_from(Ended(signal=40)).how == "signal 40"


def place_of(tensor: torch.Tensor, address: int | None = None) -> Place:
    at = tensor.data_ptr() if address is None else address
    return Place(address=at, spec=TensorSpec.of(tensor), device="cpu")


@pytest.mark.parametrize(
    ("tensor", "apart"),
    [
        (torch.ones(3, 8)[:, :5], True),
        (torch.ones(3, 8)[:, ::2], True),
        (torch.ones(8, 6, 4)[1:5, :3, 2:].mT, True),
        (torch.ones(4096, 4096)[:, 0], True),
        (torch.arange(8.0).as_strided((2, 3), (3, 2)), True),
        (torch.ones(1, 3).expand(1, 3), True),
        (torch.ones(3, 1).expand(3, 4), False),
        (torch.ones(6).as_strided((2, 3), (1, 1)), False),
        (torch.ones(7).as_strided((3, 3), (2, 1)), False),
        (torch.ones(0, 3), True),
    ],
)
def test_elements_lie_apart_or_share_memory(tensor: torch.Tensor, apart: bool):
    assert is_separate(tensor.shape, tensor.stride()) is apart
    want = torch.empty(tensor.shape)
    answer = CallOutput(skeleton={"tensor": 0}, places=(place_of(tensor),))
    expected = Output(skeleton={"tensor": 0}, tensors=(want,))
    if apart:
        require_form(answer, expected, "cpu")
        assert bool(notes_on_form(answer, expected)) is (not tensor.is_contiguous())
    else:
        with pytest.raises(Refused) as refused:
            require_form(answer, expected, "cpu")
        assert refused.value.outcome.family == "output_layout"


@pytest.mark.parametrize("most", [16, 64, 2**26])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int8, torch.complex64])
def test_a_view_with_gaps_is_copied_a_part_at_a_time(most: int, dtype, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kbopt.evaluation.transport.layout._MOST_GAP_BYTES", most)
    whole = torch.arange(8 * 6 * 40).to(dtype).reshape(8, 6, 40)
    memory = whole.view(torch.uint8).flatten()
    for part in (whole, whole[1:5, :3, 2:4], whole[:, :, 0], whole[:, 0, ::7].T, whole[7, 5, 39]):
        at = part.data_ptr() - whole.data_ptr()
        sizes = []

        def read(start: int, buffer: torch.Tensor, at: int = at, sizes: list[int] = sizes) -> None:
            sizes.append(buffer.numel())
            buffer.copy_(memory[at + start : at + start + buffer.numel()])

        assert torch.equal(copy_elements(TensorSpec.of(part), read), part)
        num_bytes = part.numel() * part.itemsize
        assert max(sizes) <= max(most, 2 * num_bytes)


def test_bytes_that_are_looked_at_belong_to_elements():
    whole = torch.zeros(8, 6, 40, dtype=torch.float64)
    part = whole[1:5, :3, 2:4]
    part.fill_(float("nan"))
    spec = TensorSpec.of(part)
    memory = whole.flatten()[(part.data_ptr() - whole.data_ptr()) // 8 :]

    places = bytes_at(spec, torch.rand(2000, dtype=torch.float64))

    assert bool(memory[places // 8].isnan().all())
    assert len((places // 8).unique()) == part.numel()
    assert int(bytes_at(TensorSpec.of(whole), torch.tensor([0.999999])).max()) < whole.numel() * 8


def test_views_of_one_buffer_that_one_call_returns_are_not_two_calls_memory():
    one, two = torch.ones(4, 12), torch.ones(4, 12)
    chunks = [CallOutput(places=tuple(map(place_of, whole.chunk(3, dim=1)))) for whole in (one, two)]

    require_separate(chunks, None)
    with pytest.raises(Refused) as refused:
        require_separate([chunks[0], chunks[0]], None)
    assert refused.value.outcome.family == "reused_output"


@pytest.mark.parametrize(
    "content",
    [
        Call(operation="run", workload=1, offsets=((0, 64), (128, 192)), hold_ms=0.5),
        Call(operation="audit", workload=0, offsets=((),), hold_ms=0.0),
        Free(workload=2, offsets=((64,),)),
        CountFailures(),
    ],
    ids=lambda content: type(content).__name__,
)
def test_a_worker_reads_a_request_as_the_codec_does(content: ToWorker) -> None:
    raw = json.loads(codec.packed(Request(id=7, content=content)))

    assert request_in(raw) == codec.decode(Request, raw) == Request(id=7, content=content)
