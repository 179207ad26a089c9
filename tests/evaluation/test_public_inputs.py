"""KernelBench's inputs, drawn in a process of their own."""

from pathlib import Path

import pytest
import torch

from kbopt.evaluation import kernelbench, public_inputs
from kbopt.evaluation.public_inputs import PublicInputs
from kbopt.evaluation.wire import Channel, Message

TASK = """
import torch

class Model(torch.nn.Module):
    def forward(self, x, n, y):
        return x * n + y

def get_inputs():
    {}
    return [torch.rand(300), 3, torch.randint(0, 9, (5, 2))]

def get_init_inputs():
    return []
"""


def draw(source: str, limit_bytes: int = 2**20) -> tuple[Message, list[int]]:
    ours, theirs = Channel.pair()
    other = Channel(theirs)
    ours.send({"source": source, "precision": "fp32", "trials": 2, "limit_bytes": limit_bytes})
    public_inputs.draw(other)
    answer = ours.receive(5)
    fds = ours.take_fds()
    ours.close()
    other.close()
    return answer, fds


def test_the_sets_are_those_of_kernelbenchs_seeds():
    header, fds = draw(TASK.format(""))

    public = PublicInputs.load(header, fds[0], torch.device("cpu"))

    torch.manual_seed(42)
    seeds = [int(torch.randint(0, 2**32 - 1, (1,)).item()) for _ in range(2)]
    for number, seed in enumerate([*seeds, 42]):
        torch.manual_seed(seed)
        assert torch.equal(public.sets[number][0], torch.rand(300))
        # KernelBench casts integers to the task's precision as well.
        assert torch.equal(public.sets[number][1], torch.randint(0, 9, (5, 2)).float())
    torch.manual_seed(42)
    first, scalar, _ = public.of_timing
    assert torch.equal(first, torch.rand(300))
    assert scalar == 3


def test_a_set_is_laid_out_anew_for_each_that_asks():
    header, fds = draw(TASK.format(""))
    public = PublicInputs.load(header, fds[0], torch.device("cpu"))

    offsets = public.lay_out(1)
    public.arena.views(offsets)[0].zero_()
    offsets = public.lay_out(1)

    assert torch.equal(public.arena.views(offsets)[0], public.sets[1][0])


@pytest.mark.parametrize(
    ("candidate", "is_drawn_here"),
    [
        ('"""A docstring."""', False),
        ("from torch import nn\nN = 3000", False),
        ("Model = None\ndef get_inputs():\n    return []", False),
        ("SHAPE = (3000, 1)", False),
        ("N = 2999", True),
        ("import torch\nEXTRA = (torch.ones(2),)", True),
        ("def size():\n    return 3000", True),
        ("import torch\ntorch.rand = lambda *shape: torch.zeros(*shape)", True),
    ],
)
def test_a_child_draws_for_itself_only_where_the_candidate_changes_what_is_drawn(
    candidate: str, is_drawn_here: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    task = TASK.format("return [torch.rand(size()), [torch.rand(3000) for _ in (N,)][0]]")
    task = task.replace("x, n, y", "x, y").replace("x * n + y", "x + y")
    read = "N, SHAPE, EXTRA = 3000, (3000, 1), (torch.zeros(2),)"
    task = f"import torch\n{read}\n\ndef size():\n    assert EXTRA\n    return SHAPE[0]\n\n{task}"
    asked: list[int] = []

    def take(number: int) -> list[torch.Tensor]:
        asked.append(number)
        return [torch.rand(3000), torch.rand(3000)]

    request = {"device": "cpu", "threads": 1, "precision": "fp32", "trials": 2, "timed": 1}
    source = f"{candidate}\nimport torch\nclass ModelNew(torch.nn.Module):\n    def forward(self, x, y):\n"
    job = {**request, "task_source": task, "source": f"{source}        return x + y\n"}
    rand = torch.rand
    try:
        answer = kernelbench.judge(job, take)
    finally:
        torch.rand = rand

    assert answer["correctness"]
    assert asked == ([] if is_drawn_here else [0, 1, 2])


@pytest.mark.parametrize(
    ("body", "limit_bytes", "why"),
    [
        ("", 1000, "3 sets of 1536 bytes"),
        ("return [torch.rand(int(torch.randint(1, 99, ())))]", 2**20, "different shapes"),
        ("raise ValueError('no inputs today')", 2**20, "no inputs today"),
    ],
)
def test_what_cannot_be_kept_is_said(body: str, limit_bytes: int, why: str):
    answer, fds = draw(TASK.format(body), limit_bytes)

    assert fds == []
    assert why in answer["why"]


@pytest.mark.parametrize(
    ("times_ms", "settled"),
    [
        ([30.0] * 19, False),  # Too few.
        ([30.0] * 20, True),
        ([1.0] * 99, False),  # Too short: a fast kernel gets all of its calls.
        ([30.0, 33.0] * 10, False),  # A standard error of 1.1 %.
        ([30.0, 40.0] * 49, False),
        ([30.0, 32.0] * 10, True),  # 0.7 %.
    ],
)
def test_kernelbench_stops_timing_slow_kernels_once_their_mean_is_known(times_ms: list[float], settled: bool):
    assert kernelbench.is_settled(times_ms) is settled
