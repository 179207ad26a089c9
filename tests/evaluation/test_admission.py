"""What decides that a task is admitted, on small tasks on the CPU."""

from itertools import count

import pytest
import torch

from kbopt.core.protocol import EvalProtocol
from kbopt.evaluation.judge.admission import _tells_elsewhere
from kbopt.evaluation.judge.reference import Draw, Reference

SOURCE = """
import torch

class Model(torch.nn.Module):
    def forward(self, x):
        return 2.0 * x

def get_inputs():
    return [torch.randn(64) if torch.rand(()) {told} else torch.zeros(64)]

def get_init_inputs():
    return []
"""


@pytest.mark.parametrize(("told", "admits"), [("> 0.001", True), ("> 0.999", False)])
def test_one_unusual_draw_decides_nothing(told: str, *, admits: bool) -> None:
    """Zeros are the answer to a draw of zeros. They are wrong on most further draws, or on hardly any."""
    reference = Reference(SOURCE.format(told=told), EvalProtocol(), torch.device("cpu"), 7)
    unusual: Draw = next(
        draw for draw in map(reference.draw, count()) if not any(t.count_nonzero() for t in draw.tensors)
    )

    assert _tells_elsewhere(reference, unusual, 1e-4) is admits
