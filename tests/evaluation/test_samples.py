"""Which clock is believed, on constructed blocks."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbopt.evaluation.timing.intervals import Scatter, drift, ratio_interval
from kbopt.evaluation.timing.samples import (
    Block,
    Overhead,
    is_settled,
    read_clocks,
    read_session,
    undisturbed_ms,
)

FIXED = Overhead(fixed_ms=0.2, per_call_ms=0.1)


def block(*native_ms: float, hidden_ms: float = 0.0, displaced_ms: float = 0.0) -> Block:
    wall_ms = sum(native_ms) + FIXED.of(len(native_ms)) + hidden_ms + displaced_ms
    return Block(native_ms=native_ms, wall_ms=wall_ms, displaced_ms=displaced_ms)


def test_overhead_runs_through_both_calibrations():
    line = Overhead.through(1, 0.3, 6, 0.8)

    assert line.of(1) == pytest.approx(0.3)
    assert line.of(6) == pytest.approx(0.8)


def test_clocks_agree_where_the_wall_saw_nothing_more():
    clocks = read_clocks([block(1.0)] * 20, [(block(2.0, 2.0, 2.0), block(1.0, 1.0, 1.0))] * 4, FIXED)

    assert clocks.native_ms == pytest.approx(1.0)
    assert clocks.wall_ms == pytest.approx(1.0)
    assert clocks.agree(slack_ms=0.0)


@pytest.mark.parametrize("hidden_ms", [0.5, 2.0])
def test_work_hidden_in_single_calls_is_seen(hidden_ms: float):
    longer = [(block(1.0, 1.0), block(1.0, 1.0))] * 4
    clocks = read_clocks([block(1.0, hidden_ms=hidden_ms)] * 20, longer, FIXED)

    assert clocks.wall_ms == pytest.approx(1.0 + hidden_ms)
    assert not clocks.agree(slack_ms=0.1)


def test_work_put_off_to_the_end_of_a_long_block_is_seen():
    longer = [(block(1.0, 1.0, 1.0, 1.0), block(0.1, 0.1, 0.1, 0.1, hidden_ms=4.0))] * 4
    clocks = read_clocks([block(1.0)] * 20, longer, FIXED)

    assert clocks.wall_ms == pytest.approx(2.0)
    assert not clocks.agree(slack_ms=0.1)


def test_what_the_reference_beside_it_waited_for_is_not_hidden_work():
    waited = [(block(2.0, 2.0, hidden_ms=0.8), block(1.0, 1.0, hidden_ms=0.8))] * 4

    assert read_clocks([block(1.0)] * 20, waited, FIXED).agree(slack_ms=0.0)


def test_a_reference_that_waited_inside_its_calls_makes_nothing_look_hidden():
    theirs = Block(native_ms=(100.0, 100.0), wall_ms=200.4, displaced_ms=90.0)

    assert read_clocks([block(1.0)] * 20, [(theirs, block(1.0, 1.0))] * 4, FIXED).agree(slack_ms=0.0)


@pytest.mark.parametrize(("num_quiet", "is_busy"), [(4, True), (5, False)])
def test_quiet_blocks_are_compared_with_quiet_ones(num_quiet: int, is_busy: bool):
    """A reference with six blocks that did not wait for a core; all others waited for 0.5 ms."""
    quiet, waited = block(0.2), block(0.2, displaced_ms=0.5)
    reference = [quiet] * 6 + [waited] * 30

    session = read_session(reference, [quiet] * num_quiet + [waited] * 20, [], FIXED)

    assert session.is_busy == is_busy
    assert session.clocks.hidden_single_ms <= 0.0


def test_work_on_another_core_while_the_answer_is_on_its_way_is_charged():
    """It takes no wall time, but processor time that the call's own clock does not cover."""
    honest = [Block(native_ms=(0.4,), wall_ms=0.7, cpu_ms=0.6)] * 12
    cheat = [Block(native_ms=(0.05,), wall_ms=0.35, cpu_ms=0.6)] * 12

    assert read_session(honest, honest, [], FIXED, single_threaded=True).kernel_ms == pytest.approx(
        [0.4] * 12
    )
    session = read_session(honest, cheat, [], FIXED, single_threaded=True)
    assert session.kernel_ms == pytest.approx([0.4 - 0.005] * 12)
    assert read_session(honest, cheat, [], FIXED).kernel_ms == pytest.approx([0.05] * 12)


def test_a_minority_of_disturbed_blocks_does_not_count():
    blocks = [block(1.0)] * 15 + [block(1.0, hidden_ms=30.0)] * 5

    assert read_clocks(blocks, [], FIXED).agree(slack_ms=0.0)


def test_time_that_went_to_other_processes_is_taken_off_unusual_calls():
    disturbed = Block(native_ms=(5.0,), wall_ms=5.3, displaced_ms=4.0)

    assert undisturbed_ms([disturbed], FIXED) == pytest.approx([1.25])
    assert undisturbed_ms([*[block(1.1)] * 5, disturbed], FIXED)[-1] == pytest.approx(1.1)


def test_displacement_outside_of_a_call_does_not_make_it_faster():
    outside = Block(native_ms=(0.05,), wall_ms=0.43, displaced_ms=0.08)

    assert undisturbed_ms([*[block(0.05)] * 5, outside], FIXED) == pytest.approx([0.05] * 6)


def test_displacement_cannot_make_a_call_faster_than_its_wall_time():
    claimed = Block(native_ms=(5.0,), wall_ms=9.3, displaced_ms=4.0)

    assert undisturbed_ms([claimed], FIXED) == pytest.approx([5.0])


@given(st.floats(0.01, 100), st.floats(0, 10), st.floats(0, 10))
def test_a_believed_time_is_positive_and_never_above_the_childs_own(native, hidden, displaced):
    one = block(native, hidden_ms=hidden, displaced_ms=displaced)

    (believed,) = undisturbed_ms([one], FIXED)

    assert native / 4 <= believed * (1 + 1e-9)
    assert believed <= native


def test_the_interval_of_equal_samples_holds_one_and_of_doubled_ones_two():
    samples = [1.0 + 0.01 * (i % 7) for i in range(50)]
    rng = random.Random(0)

    low, high = ratio_interval(samples, samples, rng)
    assert low <= 1.0 <= high
    assert high - low < 0.05
    low, high = ratio_interval([2 * s for s in samples], samples, rng)
    assert low <= 2.0 <= high


def test_what_differs_between_processes_widens_the_interval_of_short_calls_above_all():
    rng = random.Random(0)

    assert ratio_interval([2.0] * 9, [1.0] * 9, rng) == (2.0, 2.0)
    low, high = ratio_interval([2.0] * 9, [1.0] * 9, rng, Scatter(call_ms=0.1))
    assert low == pytest.approx(2.0 * math.exp(-1.96 * math.hypot(0.1, 0.05)))
    assert low * high == pytest.approx(4.0)
    low, high = ratio_interval([0.1] * 9, [0.025] * 9, rng, Scatter(call_ms=0.03))
    assert low < 1.0 < 10.0 < high
    low, high = ratio_interval([2.0] * 9, [1.0] * 9, rng, Scatter(call_share=0.01))
    assert (low, high) == pytest.approx((2.0 * math.exp(-0.0277186), 2.0 * math.exp(0.0277186)))


def test_drift_is_the_later_half_over_the_earlier():
    assert drift([1.0] * 10 + [1.5] * 10) == pytest.approx(1.5)


def test_steady_calls_are_settled_and_scattered_or_few_ones_are_not():
    steady = [block(1.0 + 0.001 * (number % 5)) for number in range(20)]
    scattered = [block(1.0 + 0.1 * (number % 5)) for number in range(20)]

    assert is_settled(steady, steady, 0.005)
    assert not is_settled(steady, steady[:19], 0.005)
    assert not is_settled(steady, scattered, 0.005)
    assert is_settled(steady * 60, scattered * 60, 0.005)


@pytest.mark.parametrize("ms", [1e-6, 1e-5, 1e-3])
def test_calls_too_short_to_be_compared_have_an_interval_all_the_same(ms: float):
    low, high = ratio_interval([ms] * 20, [ms] * 20, random.Random(0), Scatter(call_ms=0.03))

    assert 0.001 <= low * 1.000001 <= 1.0 <= high <= 1000.000001
