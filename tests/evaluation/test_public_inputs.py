"""KernelBench's inputs, drawn in a process of their own."""

import pytest
import torch

from kbopt.evaluation import public_inputs
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
