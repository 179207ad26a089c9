from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kbopt.core.pacing import PATIENCE, InFlightLimit


def limits(pacing, evaluations, **seen):
    found = []
    for _ in range(evaluations):
        pacing.observe(**{"in_flight": pacing.limit, "waiting": 0, "dry": False, **seen})
        found.append(pacing.limit)
    return found


def test_an_evaluator_that_runs_dry_raises_the_limit_once_a_round():
    # What the first raise brought arrives after as many evaluations as were in flight.
    assert limits(InFlightLimit(start=4), 10, dry=True) == [4, 4, 4, 5, 5, 5, 5, 5, 7, 7]


def test_running_dry_for_want_of_explorers_raises_nothing():
    assert limits(InFlightLimit(start=4), 30, dry=True, in_flight=3) == [4] * 30


def test_candidates_that_waited_for_nothing_are_too_many():
    assert limits(InFlightLimit(start=8), PATIENCE, waiting=5) == [8] * (PATIENCE - 1) + [3]


def test_the_fewest_that_waited_count():
    pacing = InFlightLimit(start=8)
    pacing.observe(in_flight=8, waiting=2, dry=False)
    assert limits(pacing, PATIENCE - 1, waiting=5)[-1] == 6


def test_running_dry_starts_the_count_afresh():
    pacing = InFlightLimit(start=8)
    limits(pacing, PATIENCE - 1, waiting=2)
    pacing.observe(in_flight=7, waiting=0, dry=True)
    assert limits(pacing, PATIENCE, waiting=2) == [8] * (PATIENCE - 1) + [6]


def test_other_searches_keep_the_evaluator_busy_and_the_limit_stays():
    assert limits(InFlightLimit(start=4), 100, waiting=0, dry=False) == [4] * 100


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=500))
def test_the_limit_stays_in_its_bounds(evaluations):
    pacing = InFlightLimit(start=2, largest=20)
    for in_flight, waiting in evaluations:
        pacing.observe(in_flight=in_flight, waiting=waiting, dry=waiting == 0)
        assert 1 <= pacing.limit <= 20
