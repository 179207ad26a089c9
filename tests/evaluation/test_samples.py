"""Times of calls, on constructed blocks."""

import math
import random

import pytest

from kbopt.evaluation.timing.intervals import Scatter, drift, ratio_interval
from kbopt.evaluation.timing.samples import Block, Overhead, Times, cpu_times_ms, is_settled, undisturbed_ns

EMPTY = [Block(wall_ms=0.3, cpu_ms=0.2), Block(wall_ms=0.2, cpu_ms=0.1), Block(wall_ms=9.0, cpu_ms=0.3)]
"""Requests without a call. One of them was disturbed."""


def test_overhead_runs_through_both_calibrations():
    line = Overhead.through(1, 0.3, 6, 0.8)

    assert line.of(1) == pytest.approx(0.3)
    assert line.of(6) == pytest.approx(0.8)


def test_a_call_on_a_cpu_takes_what_the_judge_saw_beyond_an_empty_request():
    calls = [Block(wall_ms=1.3, cpu_ms=1.2), Block(wall_ms=0.8, cpu_ms=0.7)]

    assert cpu_times_ms(calls, EMPTY, threads=1) == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize(("threads", "ms"), [(1, 0.4), (2, 0.05)])
def test_work_on_another_core_while_the_answer_is_on_its_way_is_charged(threads: int, ms: float):
    """It takes processor time and no wall time. With more threads it may be a thread that waits."""
    cheat = Block(wall_ms=0.35, cpu_ms=0.6)

    assert cpu_times_ms([cheat], EMPTY, threads) == pytest.approx([ms])


def test_a_call_on_a_cpu_never_takes_less_than_differs_between_processes():
    assert cpu_times_ms([Block(wall_ms=0.2, cpu_ms=0.1)], EMPTY, threads=1) == (0.03,)


@pytest.mark.parametrize(
    ("waited_ns", "cpu_ns", "left_ns"),
    [(0, 1000, 1000), (300, 500, 700), (300, 900, 900), (5000, 200, 200), (300, 1500, 1000)],
)
def test_a_wait_for_a_core_is_believed_as_far_as_processor_time_leaves_room(
    waited_ns: int, cpu_ns: int, left_ns: int
):
    assert undisturbed_ns(1000, waited_ns, cpu_ns) == left_ns


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
    steady = [1.0 + 0.001 * (number % 5) for number in range(20)]
    scattered = [1.0 + 0.1 * (number % 5) for number in range(20)]

    def settled(reference_ms: list[float], kernel_ms: list[float]) -> bool:
        times = Times(kernel_ms=tuple(kernel_ms), reference_ms=tuple(reference_ms))
        return is_settled(times, 0.005)

    assert settled(steady, steady)
    assert not settled(steady, steady[:19])
    assert not settled(steady, scattered)
    assert settled(steady * 60, scattered * 60)


@pytest.mark.parametrize("ms", [1e-6, 1e-5, 1e-3])
def test_calls_too_short_to_be_compared_have_an_interval_all_the_same(ms: float):
    low, high = ratio_interval([ms] * 20, [ms] * 20, random.Random(0), Scatter(call_ms=0.03))

    assert 0.001 <= low * 1.000001 <= 1.0 <= high <= 1000.000001
