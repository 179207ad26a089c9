from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from kbopt.core.outcomes import Audit, Measured, Roofline
from kbopt.core.protocol import EvalProtocol
from kbopt.evaluation.timing import pairs
from kbopt.evaluation.timing.intervals import CPU_SCATTER
from kbopt.evaluation.timing.samples import Times


def pair(kernel_ms: float, reference_ms: float) -> Times:
    return Times(
        kernel_ms=tuple(kernel_ms * step for step in (0.99, 1.0, 1.01)),
        reference_ms=tuple(reference_ms * step for step in (0.99, 1.0, 1.01)),
    )


def first(found: Times) -> Measured:
    return Measured(
        kernel_ms=found.kernel_ms,
        reference_ms=found.reference_ms,
        speedup=found.speedup,
        speedup_ci=(0.0, 0.0),
        native_ms=None,
        wall_ms=2.0,
        audit=Audit(custom_kernel=True, notes=("a note",)),
        roofline=Roofline(size_bytes=8, operations=1, floor_ms=1.0, share=0.9, reference_ops_ms=1.0),
    )


def pooled(*found: Times) -> Measured:
    return pairs.pooled(first(found[0]), found[1:])


def test_the_speedup_is_the_geometric_mean_and_the_quotient_of_the_times_shown() -> None:
    measured = pooled(pair(1.0, 2.0), pair(1.0, 4.0), pair(2.0, 16.0))
    assert measured.speedup == pytest.approx(4.0)
    kernel_ms, reference_ms = measured.call_ms
    assert reference_ms / kernel_ms == pytest.approx(measured.speedup)
    assert [(s.baseline, s.clock) for s in measured.speedups] == [("eager", "device"), ("eager", "latency")]
    assert measured.speedups[0].interval == measured.speedup_ci
    assert len(measured.kernel_ms) == len(measured.reference_ms) == 9


def test_what_each_pair_read_is_noted_and_the_floor_is_that_of_all_calls() -> None:
    measured = pooled(pair(2.0, 4.0), pair(2.0, 6.0), pair(2.0, 7.0))
    assert measured.audit.notes[0] == "a note"
    assert measured.audit.notes[1].endswith("read 2x, 3x, 3.5x.")
    assert measured.roofline is not None
    assert measured.roofline.share == pytest.approx(0.5)


def test_the_time_by_the_only_clock_is_that_of_all_pairs() -> None:
    measured = pooled(pair(2.0, 4.0), pair(4.0, 8.0), pair(3.0, 6.0))
    assert measured.wall_ms == pytest.approx(3.0)
    assert measured.native_ms is None


def test_the_interval_is_wide_where_pairs_differ_and_narrower_than_one_pairs_where_they_agree() -> None:
    agree = pooled(pair(10.0, 20.0), pair(10.0, 20.0), pair(10.0, 20.0)).speedup_ci
    differ = pooled(pair(10.0, 14.0), pair(10.0, 20.0), pair(10.0, 28.0)).speedup_ci
    alone = math.exp(2 * 1.96 * math.hypot(CPU_SCATTER.of_log(10.0), CPU_SCATTER.of_log(20.0)))
    assert agree[1] / agree[0] < alone < differ[1] / differ[0]


def test_calls_too_short_to_compare_have_an_interval_of_finite_numbers() -> None:
    low, high = pooled(*[pair(1e-6, 1e-6)] * 3).speedup_ci
    assert 0 < low < 1 < high < math.inf


@pytest.mark.parametrize(("times_usual", "least"), [(1.0, 0.95), (2.0, 0.8)])
def test_the_interval_holds_the_truth(times_usual: float, least: float) -> None:
    """Where processes differ as usual, and where twice as much: one pair would hold it 67 times in 100."""
    rng = random.Random(5)
    scatter = times_usual * CPU_SCATTER.of_log(5.0)
    held = 0
    for _ in range(400):
        found = [
            pair(5.0 * math.exp(rng.gauss(0, scatter)), 5.0 * math.exp(rng.gauss(0, scatter)))
            for _ in range(3)
        ]
        low, high = pooled(*found).speedup_ci
        held += low <= 1 <= high
    assert held >= least * 400


def test_pairs_share_the_timed_calls_of_the_protocol() -> None:
    protocol = EvalProtocol(timed=100, precision="fp16")
    assert pairs.protocol_of_each(protocol) == replace(protocol, trials=2, timed=34)
    assert pairs.protocol_of_each(EvalProtocol(timed=10)).timed == 7
    assert pairs.protocol_of_each(EvalProtocol(trials=1)).trials == 1
