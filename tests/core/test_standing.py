"""What may be claimed of a kernel: by all of its measurements, its interval, and who does the work."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kbopt.core.events import Evaluated, Proposed
from kbopt.core.outcomes import Measured
from kbopt.core.proposals import Trial
from kbopt.core.scoring import headline_state, standing
from kbopt.core.tally import amount
from tests.support.journals import entries


def measured_trial() -> Trial:
    """A candidate of a journal with one measurement."""
    found = list(entries(30))
    evaluated = next(
        e.event
        for e in found
        if isinstance(e.event, Evaluated) and isinstance(e.event.result.outcome, Measured)
    )
    candidate = next(
        e.event.candidate
        for e in found
        if isinstance(e.event, Proposed) and e.event.candidate.id == evaluated.candidate
    )
    return Trial(candidate=candidate, results=(evaluated.result,))


def test_all_measurements_count_and_not_the_last_one():
    trial = measured_trial()
    result, outcome = trial.results[0], trial.results[0].outcome
    outcomes = [
        replace(outcome, speedup=s, speedup_ci=(s - 0.2, s + 0.2), kernel_ms=(1 / s,), speedups=())
        for s in (2.0, 2.6)
    ]
    results = tuple(replace(result, outcome=one) for one in outcomes)
    found = standing(replace(trial, results=results))
    assert found.speedup == pytest.approx(2.3)
    assert found.speedup_ci == pytest.approx((2.1, 2.5))
    assert (found.measurements, found.state) == (2, "faster")
    assert found.kernel_ms == pytest.approx((1 / 2.0 + 1 / 2.6) / 2)


@pytest.mark.parametrize(
    ("interval", "custom", "state"),
    [
        ((1.01, 1.2), True, "faster"),
        ((1.0, 1.2), True, "not faster"),
        ((0.5, 0.8), True, "not faster"),
        ((1.01, 1.2), False, "no custom kernel"),
        ((0.9, 1.1), False, "not faster"),
    ],
)
def test_faster_takes_an_interval_above_1_and_a_kernel_of_its_own(interval, custom, state):
    assert headline_state(interval, custom_kernel=custom) == state


def test_some_dollars_are_never_written_as_none():
    figures = (0.0, 1.5, 0.01, 0.009, 0.0012, 0.001, 0.0000036)
    assert [amount(usd) for usd in figures] == [
        "0.00", "1.50", "0.01", "0.009", "0.0012", "0.001", "0.0000036"
    ]  # fmt: skip
