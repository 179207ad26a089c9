from __future__ import annotations

import pytest

from kbopt.core import scoring
from kbopt.core.evaluations import Result, Seconds
from kbopt.core.outcomes import Audit, Crashed, Measured
from kbopt.core.proposals import Trial


def measured(speedup: float, low: float, high: float) -> Measured:
    return Measured(
        kernel_ms=(1.0 / speedup,),
        reference_ms=(1.0,),
        speedup=speedup,
        speedup_ci=(low, high),
        native_ms=1.0 / speedup,
        wall_ms=1.0 / speedup,
        audit=Audit(custom_kernel=True),
    )


def trial(*outcomes) -> Trial:
    results = tuple(
        Result(
            outcome=outcome, feedback="", device="d", protocol="p", boot="b", seconds=Seconds(), device_s=0.0
        )
        for outcome in outcomes
    )
    return Trial(candidate=None, results=results)


def test_a_failure_scores_zero_and_a_measurement_its_speedup():
    assert scoring.score(Crashed(reason="", how="SIGSEGV")) == 0.0
    assert scoring.score(measured(1.7, 1.6, 1.8)) == 1.7


def test_repeats_are_averaged_with_their_intervals():
    twice = trial(measured(2.0, 1.8, 2.2), measured(1.0, 0.9, 1.1))
    assert scoring.mean_score(twice) == 1.5
    assert scoring.score_interval(twice) == pytest.approx((1.35, 1.65))


def test_a_repeat_that_failed_halves_the_mean():
    assert scoring.mean_score(trial(measured(2.0, 1.8, 2.2), Crashed(reason="", how="exit 1"))) == 1.0


def test_the_mean_interval_of_known_values():
    low, high = scoring.mean_interval([1.0, 2.0, 3.0, 4.0, 5.0] * 20)
    assert low == pytest.approx(2.73, abs=0.03)
    assert high == pytest.approx(3.27, abs=0.03)


def test_fast_p_counts_unsolved_tasks_in_the_denominator():
    speedups = [0.0, 0.9, 1.0, 1.05, 2.0]
    assert scoring.fast_p(speedups, 0.0) == 0.8
    assert scoring.fast_p(speedups, 1.0) == 0.4
    assert scoring.fast_p(speedups, 1.05) == 0.2


def test_fast_p_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="one speedup per task"):
        scoring.fast_p([], 1.0)


def test_geometric_mean_of_a_doubling_and_a_halving_is_one():
    assert scoring.geometric_mean([2.0, 0.5]) == pytest.approx(1.0)
    assert scoring.geometric_mean([1.0, 2.0, 4.0]) == pytest.approx(2.0)


@pytest.mark.parametrize("speedups", [[], [1.0, 0.0]])
def test_the_geometric_mean_needs_positive_values(speedups):
    with pytest.raises(ValueError, match="positive"):
        scoring.geometric_mean(speedups)
