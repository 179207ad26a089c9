"""What several pairs of processes say together, one with the kernel and one with the reference in each.

On a CPU a process keeps the pages of memory that it was given, and with them a speed of its own: equal code
differs by 5 % and more from process to process, which no number of calls in one pair shows. See
docs/decisions/0046-pairs-of-processes.md. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median, variance

from kbopt.core.types import EvalProtocol, Measured, Speedup
from kbopt.evaluation.timing.intervals import CPU_SCATTER, WIDEST, median_variance

NUM_PAIRS = 3
_FEWEST_TIMED = 7
"""Calls of each model in a pair: what a quartile needs, and what the clocks' comparison calls enough."""
_PRIOR_WEIGHT = 4
"""Degrees of freedom that the usual scatter counts for, beside the `NUM_PAIRS - 1` of the pairs at hand: as
much as five pairs. It was measured on two machines of one kind only."""
_STUDENT = 2.447
"""The 97.5 % quantile of Student's t with `_PRIOR_WEIGHT + NUM_PAIRS - 1` degrees of freedom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Single calls of the kernel and of the reference in one pair of processes, in milliseconds.

    `native_ms` and `wall_ms` are the kernel's median by the two clocks that had to agree, as in `Measured`.
    """

    kernel_ms: tuple[float, ...]
    reference_ms: tuple[float, ...]
    native_ms: float
    wall_ms: float

    @property
    def hidden_ms(self) -> float:
        """What the kernel was charged beyond its own clock."""
        return median(self.kernel_ms) - self.native_ms

    @property
    def speedup(self) -> float:
        return median(self.reference_ms) / median(self.kernel_ms)


def protocol_of_each(protocol: EvalProtocol) -> EvalProtocol:
    """For one pair of several, which share the timed calls."""
    return replace(protocol, timed=max(_FEWEST_TIMED, math.ceil(protocol.timed / NUM_PAIRS)))


def pooled(first: Measured, others: Sequence[Pair]) -> Measured:
    """What `first` and `NUM_PAIRS - 1` others measured of one kernel over eager PyTorch.

    Its speedup is the geometric mean over the pairs.
    """
    pairs = [
        Pair(
            kernel_ms=first.kernel_ms,
            reference_ms=first.reference_ms,
            native_ms=first.native_ms,
            wall_ms=first.wall_ms,
        ),
        *others,
    ]
    kernel_ms = tuple(ms for pair in pairs for ms in pair.kernel_ms)
    over_eager = _over_eager(pairs)
    found = ", ".join(f"{pair.speedup:.3g}x" for pair in pairs)
    note = f"{len(pairs)} pairs of processes, each with a kernel and a reference of its own, read {found}."
    native_ms = median(ms - pair.hidden_ms for pair in pairs for ms in pair.kernel_ms)
    floor = first.roofline
    return replace(
        first,
        kernel_ms=kernel_ms,
        reference_ms=tuple(ms for pair in pairs for ms in pair.reference_ms),
        speedup=over_eager.speedup,
        speedup_ci=over_eager.interval,
        native_ms=native_ms,
        wall_ms=native_ms + max(pair.wall_ms - pair.native_ms for pair in pairs),
        audit=replace(first.audit, notes=(*first.audit.notes, note)),
        roofline=replace(floor, share=min(1.0, floor.floor_ms / median(kernel_ms))) if floor else None,
        speedups=(over_eager, replace(over_eager, clock="latency")),
    )


def _over_eager(pairs: Sequence[Pair]) -> Speedup:
    """By the pairs' medians. The interval is that of their mean logarithm, whose variance the usual scatter
    and that of these pairs say together: a scaled inverse chi-squared prior, and its posterior.
    """
    logs = [math.log(pair.speedup) for pair in pairs]
    usual = fmean(
        CPU_SCATTER.log_ratio(median(pair.reference_ms), median(pair.kernel_ms)) ** 2
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
