"""One result from several pairs of processes on a CPU, each one with the kernel and one with the reference.

A process keeps the pages of memory that it got first, and its speed depends on them. Equal code therefore
differs by 5 % and more between processes, and more calls in one pair do not show this. See
docs/decisions/0046-pairs-of-processes.md. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, median, variance

from kbopt.core.outcomes import Measured, Speedup
from kbopt.core.protocol import EvalProtocol
from kbopt.evaluation.timing.intervals import CPU_SCATTER, WIDEST, median_variance
from kbopt.evaluation.timing.samples import Times

NUM_PAIRS = 3
"""Pairs of processes that time one kernel on a CPU (decision 46)."""
_FEWEST_TIMED = 7
"""Timed calls of each model in a pair at least: quartiles of fewer say little."""
_PRIOR_WEIGHT = 4
"""Degrees of freedom of the usual scatter; the pairs themselves have `NUM_PAIRS - 1`. The usual scatter
weighs as much as five pairs and no more, because it was measured on two machines of one kind only."""
_STUDENT = 2.447
"""The 97.5 % quantile of Student's t with `_PRIOR_WEIGHT + NUM_PAIRS - 1` degrees of freedom."""


def protocol_of_each(protocol: EvalProtocol) -> EvalProtocol:
    """Return the protocol of one of `NUM_PAIRS` pairs, which share the checks and the timed calls."""
    return replace(
        protocol,
        trials=math.ceil(protocol.trials / NUM_PAIRS),
        timed=max(_FEWEST_TIMED, math.ceil(protocol.timed / NUM_PAIRS)),
    )


def pooled(first: Measured, others: Sequence[Times]) -> Measured:
    """Return the result of all pairs: of `first`, which went through the whole protocol, and of `others`.

    The speedup over eager PyTorch is the geometric mean of the pairs' speedups.
    """
    pairs = [Times(kernel_ms=first.kernel_ms, reference_ms=first.reference_ms), *others]
    kernel_ms = tuple(ms for pair in pairs for ms in pair.kernel_ms)
    over_eager = _over_eager(pairs)
    found = ", ".join(f"{pair.speedup:.3g}x" for pair in pairs)
    note = f"{len(pairs)} pairs of processes, each with a kernel and a reference of its own, read {found}."
    floor = first.roofline
    return replace(
        first,
        kernel_ms=kernel_ms,
        reference_ms=tuple(ms for pair in pairs for ms in pair.reference_ms),
        speedup=over_eager.speedup,
        speedup_ci=over_eager.interval,
        wall_ms=median(kernel_ms),
        audit=replace(first.audit, notes=(*first.audit.notes, note)),
        roofline=replace(floor, share=min(1.0, floor.floor_ms / median(kernel_ms))) if floor else None,
        speedups=(over_eager, replace(over_eager, clock="latency")),
    )


def _over_eager(pairs: Sequence[Times]) -> Speedup:
    """Return the mean speedup by the pairs' medians, with the 95 % interval of their mean logarithm.

    The variance is the posterior of a scaled inverse chi-squared prior at the usual scatter, updated by the
    scatter of these pairs.
    """
    logs = [math.log(pair.speedup) for pair in pairs]
    usual = fmean(
        CPU_SCATTER.of_log(median(pair.reference_ms)) ** 2
        + CPU_SCATTER.of_log(median(pair.kernel_ms)) ** 2
        + median_variance(pair.reference_ms)
        + median_variance(pair.kernel_ms)
        for pair in pairs
    )
    freedom = len(pairs) - 1
    scatter = (_PRIOR_WEIGHT * usual + freedom * variance(logs)) / (_PRIOR_WEIGHT + freedom)
    half = min(WIDEST, _STUDENT * math.sqrt(scatter / len(pairs)))
    kernel_ms, reference_ms = (
        math.exp(fmean(math.log(median(times)) for times in side))
        for side in ([pair.kernel_ms for pair in pairs], [pair.reference_ms for pair in pairs])
    )
    ratio = reference_ms / kernel_ms
    return Speedup(
        baseline="eager",
        clock="device",
        baseline_ms=reference_ms,
        kernel_ms=kernel_ms,
        speedup=ratio,
        interval=(ratio * math.exp(-half), ratio * math.exp(half)),
    )
