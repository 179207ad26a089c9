from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kbopt.core.pacing import PATIENCE, ReadyDepth


def test_an_evaluator_that_ran_dry_raises_the_limit_at_once():
    depth = ReadyDepth(start=2)
    limits = []
    for _ in range(4):
        depth.observe(queue_s=0.0, idle=True)
        limits.append(depth.limit)
    assert limits == [3, 5, 8, 12]


def test_an_evaluator_that_never_runs_dry_lowers_it_slowly():
    depth = ReadyDepth(start=3)
    for _ in range(PATIENCE):
        assert depth.limit == 3
        depth.observe(queue_s=1.0, idle=False)
    assert depth.limit == 2


def test_running_dry_starts_the_count_afresh():
    depth = ReadyDepth(start=2)
    for _ in range(PATIENCE - 1):
        depth.observe(queue_s=1.0, idle=False)
    depth.observe(queue_s=1.0, idle=True)
    depth.observe(queue_s=1.0, idle=False)
    assert depth.limit == 3


@given(st.lists(st.booleans(), max_size=500))
def test_the_limit_stays_in_its_bounds(idles):
    depth = ReadyDepth(start=2, smallest=1, largest=20)
    for idle in idles:
        depth.observe(queue_s=0.5, idle=idle)
        assert 1 <= depth.limit <= 20
