"""For how long a GPU is kept busy while a call's kernels are queued."""

import pytest

from kbopt.evaluation.timing.pace import Pace


def test_before_the_reference_was_called_it_is_the_least() -> None:
    assert Pace().hold_ms(0) == 0.4


def test_a_call_of_few_kernels_gets_the_least() -> None:
    pace = Pace()
    pace.learn(0, 0.05)
    assert pace.hold_ms(0) == 0.4


def test_it_is_twice_the_quickest_launching_of_the_reference_on_that_workload() -> None:
    pace = Pace()
    for queued_ms in (400.0, 6.0, 9.0):  # The first call loads kernels.
        pace.learn(0, queued_ms)
    pace.learn(1, 2.0)
    assert pace.hold_ms(0) == 12.0
    assert pace.hold_ms(1) == 4.0


@pytest.mark.parametrize("queued_ms", [15.1, 90.0, 1e6])
def test_a_call_of_more_kernels_than_a_stream_holds_is_not_held_for(queued_ms: float) -> None:
    pace = Pace()
    pace.learn(0, queued_ms)
    assert pace.hold_ms(0) == 0.4
