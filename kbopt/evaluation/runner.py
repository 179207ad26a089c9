"""What runs inside the sandbox: loads the candidate and calls it when the referee says so.

Nothing that leaves this process is believed. It knows no expected answer, no seed of the inputs, not
which calls are checked, which are timed, nor how many follow: every call is the same request. What the
referee needs it takes itself (its own clock, the outputs' memory); what is said here has to fit.
"""

from __future__ import annotations

import os
import time
import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from kbopt.core.types import Precision
from kbopt.evaluation import cuda, linux
from kbopt.evaluation.arena import attach
from kbopt.evaluation.audit import audited, kernel_times
from kbopt.evaluation.candidate import CandidateError, describe_exception, load_candidate
from kbopt.evaluation.compile import gpu_code, inline
from kbopt.evaluation.layout import LayoutError, TensorSpec, flatten, unflatten, view
from kbopt.evaluation.reference import DTYPES, allow_tf32, placed, seed_everything
from kbopt.evaluation.wire import SPIN_S, Channel, Message

_MOST_KERNELS = 20
_BUILD_NICENESS = 10
_ABSENT = torch.device("cuda:0")
"""By its index: torch would ask the driver which one is meant otherwise."""


class _Session:
    """One model: its inputs' memory, and the outputs of the latest block."""

    def __init__(self, request: Message, channel: Channel, *, warm: bool) -> None:
        self._warm = warm
        self._say = channel.send
        torch.set_num_threads(request["threads"])
        linux.keep_freed_memory()
        self._device = torch.device(request["device"])
        self._cuda = cuda.ChildSide(request["arena"], self._device) if self._device.type == "cuda" else None
        self._arena = attach(channel.take_fds()) if self._cuda is None else self._cuda.buffer
        self._skeleton = request["skeleton"]
        self._specs = [TensorSpec.from_json(raw) for raw in request["specs"]]
        self._model: Any = _copy_first
        self._timed: Callable[[Sequence[Callable[[], Any]]], tuple[list[Any], list[int]]] = (
            _host_timed if self._cuda is None else self._cuda.timed
        )
        self._outputs: list[Any] = []

    @property
    def on_cuda(self) -> bool:
        return self._cuda is not None

    @property
    def base(self) -> int:
        return self._arena.data_ptr()

    def build(self, request: Message) -> Message:
        """Load the source and construct `ModelNew` with the reference's weights."""
        allow_tf32(request["allow_tf32"])
        if not self._warm:
            _find_builds(request["setup"])
        module = load_candidate(request["source"])
        specs = [TensorSpec.from_json(raw) for raw in request["init_specs"]]
        tensors = [
            view(self._arena, spec, offset).clone()
            for spec, offset in zip(specs, request["init_offsets"], strict=True)
        ]
        values = unflatten(request["init_skeleton"], tensors)
        seed_everything(request["weight_seed"])
        model = module.ModelNew(*values)
        if isinstance(model, torch.nn.Module):
            model = model.to(device=self._device, dtype=DTYPES[request["precision"]])
        self._model = model
        return {"built": True}

    def run(self, request: Message) -> Message:
        """Call the model once per entry of `offsets`; say how long each took and where its outputs lie."""
        return self._run(request, self._model)

    def rehearse(self, request: Message) -> Message:
        """The same with a copy in the model's place, and outputs of as many bytes as it has."""
        return self._run(request, partial(_copy_for, self._device, request["output_bytes"]))

    def _run(self, request: Message, model: Any) -> Message:
        batch = [self._arguments(offsets) for offsets in request["offsets"]]
        calls = [partial(model, *arguments) for arguments in batch]
        if self._cuda is not None and "gate" in request:
            return self._run_gated(self._cuda, request, calls)
        timed = self._timed
        with torch.no_grad():
            outputs, nanoseconds = timed(calls)
        self._outputs += outputs
        return {"ns": nanoseconds, "outputs": [self._describe(output) for output in outputs]}

    def _run_gated(
        self, device: cuda.ChildSide, request: Message, calls: Sequence[Callable[[], Any]]
    ) -> Message:
        """The same in two messages: all calls wait for the gate to open; their times, if `marked`."""

        def queued(outputs: list[Any]) -> None:
            self._outputs += outputs
            described = [self._describe(output) for output in outputs]
            self._say({"id": request["id"], "outputs": described})

        with torch.no_grad():
            return {"ns": device.volley(request["gate"], calls, queued, marked=request["marked"])}

    def audit(self, request: Message) -> Message:
        """One call under a dispatch mode; what PyTorch did, and whether anything else wrote memory."""
        arguments = self._arguments(request["offsets"][0])
        with torch.no_grad():
            output, seen = audited(lambda: self._model(*arguments))
        self._outputs.append(output)
        if self._cuda is not None:
            torch.cuda.synchronize(self._device)
        return {"ns": [0], "outputs": [self._describe(output)], "audit": seen}

    def profile(self, request: Message) -> Message:
        """The kernels of one call on a GPU, see `audit.kernel_times`."""
        arguments = self._arguments(request["offsets"][0])
        with torch.no_grad():
            kernels = kernel_times(lambda: self._model(*arguments))
        return {"kernels": kernels[:_MOST_KERNELS]}

    def free(self, request: Message) -> Message:
        self._outputs.clear()
        if self._cuda is not None:
            self._cuda.forget()
        return {"freed": True}

    def _describe(self, output: Any) -> Message:
        try:
            skeleton, tensors = flatten(output)
        except LayoutError as error:
            return {"unusable": str(error)}
        places = []
        for tensor in tensors:
            address = tensor.data_ptr()
            on_device = self._cuda is not None and tensor.is_cuda
            segment, offset = self._cuda.locate(address) if self._cuda and on_device else ("", 0)
            places.append([address, TensorSpec.of(tensor).to_json(), tensor.device.type, segment, offset])
        return {"skeleton": skeleton, "tensors": places}

    def _arguments(self, offsets: list[int]) -> Any:
        tensors = [view(self._arena, spec, at) for spec, at in zip(self._specs, offsets, strict=True)]
        return unflatten(self._skeleton, tensors)


def _copy_first(*arguments: Any) -> Any:
    """Stands in for the candidate while the referee learns what requests cost besides the call itself."""
    _, tensors = flatten(list(arguments))
    return tensors[0].clone() if tensors else None


def _copy_for(device: torch.device, output_bytes: Sequence[int], *arguments: Any) -> list[Any]:
    """Copies the first tensor, and returns memory of `output_bytes` for the outputs of a model."""
    _copy_first(*arguments)
    return [torch.empty(size, dtype=torch.uint8, device=device) for size in output_bytes]


def _host_timed(
    calls: Sequence[Callable[[], Any]], clock: Callable[[], int] = time.perf_counter_ns
) -> tuple[list[Any], list[int]]:
    """The calls' results, and the nanoseconds of each by a clock bound before the candidate was loaded."""
    results, nanoseconds = [], []
    for call in calls:
        started = clock()
        results.append(call())
        nanoseconds.append(clock() - started)
    return results, nanoseconds


def measure(channel: Channel) -> None:
    """Serve the referee until it hangs up."""
    request, warm = _warmed_up(channel)
    session = _Session(request, channel, warm=warm)
    if session.on_cuda:
        channel.spin_s = SPIN_S
    channel.send({"id": request["id"], "base": session.base})
    operations: dict[str, Callable[[Message], Message]] = {
        "build": session.build,
        "run": session.run,
        "rehearse": session.rehearse,
        "audit": session.audit,
        "profile": session.profile,
        "free": session.free,
    }
    while True:
        request = channel.receive()
        try:
            reply = operations[request["op"]](request)
        except CandidateError as error:
            reply = {"rejected_source": str(error)}
        except BaseException as error:  # noqa: BLE001 - the sandbox's edge: the candidate may raise anything
            reply = {"raised": describe_exception(error)}
        channel.send({"id": request["id"], **reply})


def _warmed_up(channel: Channel) -> tuple[Message, bool]:
    """The first message of a judge, and whether all was made ready before, outside of the device's lease."""
    request = channel.receive()
    if request["op"] != "warm":
        return request, False
    _find_builds(request["setup"])
    square = torch.ones(8, 8, device=request["device"])
    torch.allclose(square @ square, square)  # Has the libraries load what they load at their first use.
    if request["triton"]:
        _load_triton()
    channel.send({"warm": True})
    return channel.receive(), True


def _load_triton() -> None:
    """Have Triton do what it does at any first launch: load its driver, ask ptxas for its version."""
    with suppress(Exception):  # What is amiss with it, the candidate will meet.
        from triton.compiler.compiler import make_backend
        from triton.runtime import driver

        make_backend(driver.active.get_current_target()).hash()


def build(channel: Channel) -> None:
    """Import the candidate once, so that whatever it compiles is on disk afterwards.

    With `task_source` its kernels that compile at their first launch are compiled too, on tensors without
    memory; what that run meets is no verdict.
    """
    request = channel.receive()
    os.nice(_BUILD_NICENESS)  # Its compilers too: whoever holds the device is waited for.
    try:
        _find_builds(request["setup"])
        module = load_candidate(request["source"])
        if request["task_source"]:
            with suppress(Exception), gpu_code.ahead_of_device(request["arch"]):
                _call_once(module, request["task_source"], request["precision"])
        reply: Message = {"built": True}
    except CandidateError as error:
        reply = {"rejected_source": str(error)}
    except BaseException as error:  # noqa: BLE001 - the sandbox's edge: the candidate may raise anything
        reply = {"raised": describe_exception(error)}
    channel.send(reply)


def _find_builds(setup: str) -> None:
    """Point compilers to where this candidate's builds lie, and load_inline to those that are there."""
    if setup:
        inline.install(inline.Setup.decode(setup))


def _call_once(module: Any, task_source: str, precision: Precision) -> None:
    """Call the model as it will be measured, inside `gpu_code.ahead_of_device`: no device has to be there."""
    task = types.ModuleType("task")
    exec(compile(task_source, "task.py", "exec"), task.__dict__)
    model = module.ModelNew(*_moved(task.get_init_inputs(), precision))
    if isinstance(model, torch.nn.Module):
        _move(model, precision)
    with torch.no_grad():
        model(*_moved(task.get_inputs(), precision))


def _moved(values: Any, precision: Precision) -> Any:
    return tree_map_only(torch.Tensor, partial(placed, precision=precision, device=_ABSENT), values)


def _move(model: torch.nn.Module, precision: Precision) -> None:
    """`Module.to` swaps parameters in place, which those without memory refuse."""
    for part in model.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            moved = torch.nn.Parameter(placed(parameter, precision, _ABSENT), requires_grad=False)
            setattr(part, name, moved)
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, placed(buffer, precision, _ABSENT))


def kernelbench(channel: Channel) -> None:
    """KernelBench's own protocol, reference and candidate in one process as it has them."""
    from kbopt.evaluation.kernelbench import judge

    request, warm = _warmed_up(channel)
    if not warm:
        _find_builds(request["setup"])
    channel.send(judge(request, _inputs_on_request(channel, request["public"], request["device"])))


def _inputs_on_request(channel: Channel, offer: Message | None, device: str) -> Callable[[int], Any] | None:
    """Private copies of KernelBench's inputs by number, see `public_inputs`; None without an offer."""
    if offer is None:
        return None
    on_cuda = device.startswith("cuda")
    buffer = cuda.attach(offer["arena"], torch.device(device)) if on_cuda else attach(channel.take_fds())
    specs = [TensorSpec.from_json(raw) for raw in offer["specs"]]

    def take(number: int) -> Any:
        channel.send({"inputs": number})
        offsets = channel.receive()["offsets"]
        tensors = [view(buffer, spec, at).clone() for spec, at in zip(specs, offsets, strict=True)]
        return unflatten(offer["skeleton"], tensors)

    return take
