from __future__ import annotations

from statistics import median

import pytest

from kbopt.evaluation.timing import samples


def test_waiting_inside_long_reference_calls_is_no_negative_overhead() -> None:
    """A reference of 100 ms that waited 60 ms for a core inside its calls, and an honest kernel of 3 ms."""
    reference = [samples.Block(native_ms=(100.0,), wall_ms=100.5, displaced_ms=60.0) for _ in range(12)]
    kernel = [samples.Block(native_ms=(3.0,), wall_ms=3.5) for _ in range(12)]
    calibrated = samples.Overhead(fixed_ms=0.4, per_call_ms=0.0)
    overhead = calibrated.as_seen_in(reference)
    assert overhead.fixed_ms == pytest.approx(0.5)
    assert samples.read_clocks(kernel, [], overhead).agree(samples.overhead_spread_ms(reference) + 1e-9)


def test_work_hidden_from_the_childs_clock_still_shows_beside_a_reference_that_waited() -> None:
    reference = [samples.Block(native_ms=(100.0,), wall_ms=100.5, displaced_ms=60.0) for _ in range(12)]
    cheat = [samples.Block(native_ms=(1.0,), wall_ms=3.5) for _ in range(12)]
    overhead = samples.Overhead(fixed_ms=0.4, per_call_ms=0.0).as_seen_in(reference)
    clocks = samples.read_clocks(cheat, [], overhead)
    assert clocks.wall_ms == pytest.approx(3.0)
    assert not clocks.agree(samples.overhead_spread_ms(reference))


def test_a_clock_that_stands_still_gains_nothing_however_long_the_machine_made_it_wait() -> None:
    """Calls of 1.5 ms, reported as a microsecond, on a machine that adds up to 6 ms around each block."""
    waits = [0.25 * number for number in range(24)]
    reference = [samples.Block(native_ms=(1.5,), wall_ms=1.8 + wait, displaced_ms=wait) for wait in waits]
    cheat = [samples.Block(native_ms=(0.001,), wall_ms=1.8 + wait, displaced_ms=wait) for wait in waits]
    session = samples.read_session(reference, cheat, [], samples.Overhead(fixed_ms=0.3, per_call_ms=0.0))
    assert min(session.kernel_ms) > 0.0
    assert sorted(session.kernel_ms)[12] >= 0.9 * sorted(session.reference_ms)[12]


def test_no_call_takes_less_than_no_time() -> None:
    """Credited with more waiting than the call took, because most of it was around the call."""
    reference = [samples.Block(native_ms=(1.5,), wall_ms=6.5, displaced_ms=5.5) for _ in range(12)]
    session = samples.read_session(reference, reference, [], samples.Overhead(fixed_ms=0.3, per_call_ms=0.0))
    assert min(session.kernel_ms) > 0.0
    assert min(session.reference_ms) > 0.0


def test_a_clock_that_lies_only_where_the_machine_made_it_wait_gains_nothing() -> None:
    """A child can read how long it waited, and report the truth in the blocks in which it did not."""
    quiet = [samples.Block(native_ms=(1.5,), wall_ms=1.8) for _ in range(8)]
    waited = [samples.Block(native_ms=(1.5,), wall_ms=2.8, displaced_ms=1.0) for _ in range(16)]
    lied = [samples.Block(native_ms=(0.01,), wall_ms=2.8, displaced_ms=1.0) for _ in range(16)]
    calibrated = samples.Overhead(fixed_ms=0.3, per_call_ms=0.0)
    session = samples.read_session([*quiet, *waited], [*quiet, *lied], [], calibrated)
    gained = median(session.reference_ms) / median(session.kernel_ms)
    assert not session.clocks_agree or gained < 1.3
