from __future__ import annotations

import pytest

from kbopt.evaluation import timing


def test_waiting_inside_long_reference_calls_is_no_negative_overhead() -> None:
    """A reference of 100 ms that waited 60 ms for a core inside its calls, and an honest kernel of 3 ms."""
    reference = [timing.Block(native_ms=(100.0,), wall_ms=100.5, displaced_ms=60.0) for _ in range(12)]
    kernel = [timing.Block(native_ms=(3.0,), wall_ms=3.5) for _ in range(12)]
    calibrated = timing.Overhead(fixed_ms=0.4, per_call_ms=0.0)
    overhead = calibrated.as_seen_in(reference)
    assert overhead.fixed_ms == pytest.approx(0.5)
    assert timing.read_clocks(kernel, [], overhead).agree(timing.overhead_spread_ms(reference) + 1e-9)


def test_work_hidden_from_the_childs_clock_still_shows_beside_a_reference_that_waited() -> None:
    reference = [timing.Block(native_ms=(100.0,), wall_ms=100.5, displaced_ms=60.0) for _ in range(12)]
    cheat = [timing.Block(native_ms=(1.0,), wall_ms=3.5) for _ in range(12)]
    overhead = timing.Overhead(fixed_ms=0.4, per_call_ms=0.0).as_seen_in(reference)
    clocks = timing.read_clocks(cheat, [], overhead)
    assert clocks.wall_ms == pytest.approx(3.0)
    assert not clocks.agree(timing.overhead_spread_ms(reference))
