"""What an exchange with a child comes to."""

from kbopt.core.outcomes import Measured
from kbopt.evaluation.judge.worker import Exchange
from tests.evaluation.conftest import Bench


def test_a_child_that_says_no_time_passed_is_taken_to_have_used_some():
    said = Exchange(
        outputs=[],
        native_ns=[0, 1500],
        wall_ns=2_000_000,
        cpu_ns=1_000_000,
        offsets=[],
        spot_checks=[],
    )

    assert said.block.native_ms == (1e-6, 1.5e-3)
    assert said.block.cpu_ms == 1.0


COUNTS_ITS_INPUTS = """
import sys
import torch

SEEN = []
make = torch.frombuffer

def noted(*arguments, **options):
    frame = sys._getframe(1)
    while frame is not None:
        if hasattr(frame.f_locals.get("request"), "id"):
            SEEN.append(type(frame.f_locals["request"].content).__name__)
            break
        frame = frame.f_back
    return make(*arguments, **options)

torch.frombuffer = noted

class ModelNew(torch.nn.Module):
    def forward(self, x):
        if len(SEEN) > 24 and SEEN.count("Free") < len(SEEN) / 2:
            raise RuntimeError(f"inputs were made by {SEEN}")
        return torch.tanh(x) * 2 + x
"""


def test_the_inputs_of_most_calls_are_tensors_before_a_call_is_timed(bench: Bench):
    result = bench.judge(COUNTS_ITS_INPUTS)

    assert isinstance(result.outcome, Measured), result.outcome
