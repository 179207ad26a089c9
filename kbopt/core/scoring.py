"""What a result is worth, and how sure one may be of it.

The search maximizes speedup: median reference time over median kernel time. A kernel that does not
work is worth 0, the same as one that is infinitely slow. Failures of machines have no score at all:
they are `InfraError`s and never reach the search.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kbopt.core.outcomes import Measured, Outcome
from kbopt.core.proposals import Trial

BOOTSTRAP_RESAMPLES = 1000


def score(outcome: Outcome) -> float:
    """The speedup of a measured kernel, 0.0 of any other."""
    return outcome.speedup if isinstance(outcome, Measured) else 0.0


def mean_score(trial: Trial) -> float:
    """A candidate's speedup, wherever one is shown: the mean score over the measurements that judge it."""
    return sum(score(result.outcome) for result in trial.judged) / len(trial.judged)


def score_interval(trial: Trial) -> tuple[float, float]:
    """Where `mean_score` lies according to those measurements: the mean ends of their 95 % intervals.

    A measurement that failed contributes (0, 0). Averaging the ends does not narrow the interval as
    repeats are added: it stays an honest bound where sessions differ by more than their own noise.
    """
    ends = [r.outcome.speedup_ci if isinstance(r.outcome, Measured) else (0.0, 0.0) for r in trial.judged]
    return sum(low for low, _ in ends) / len(ends), sum(high for _, high in ends) / len(ends)


HeadlineState = Literal["faster", "not faster", "no custom kernel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What all measurements of a candidate say of it together, and what may be claimed.

    `kernel_ms` and `reference_ms` are medians over the measurements. `state` is `faster` only where the 95 %
    interval lies above 1 and the candidate brings a kernel of its own.
    """

    candidate: str
    speedup: float
    speedup_ci: tuple[float, float]
    measurements: int
    kernel_ms: float
    reference_ms: float
    custom_kernel: bool
    state: HeadlineState


def standing(trial: Trial) -> Standing | None:
    """None for a candidate that was never measured."""
    measured = [r.outcome for r in trial.judged if isinstance(r.outcome, Measured)]
    if not measured:
        return None
    interval, custom = score_interval(trial), measured[-1].audit.custom_kernel
    return Standing(
        candidate=trial.candidate.id,
        speedup=mean_score(trial),
        speedup_ci=interval,
        measurements=len(trial.judged),
        kernel_ms=statistics.median(outcome.call_ms[0] for outcome in measured),
        reference_ms=statistics.median(outcome.call_ms[1] for outcome in measured),
        custom_kernel=custom,
        state=headline_state(interval, custom_kernel=custom),
    )


def headline_state(speedup_ci: tuple[float, float], *, custom_kernel: bool) -> HeadlineState:
    """What may be claimed of a correct kernel with this 95 % interval."""
    if speedup_ci[0] <= 1.0:
        return "not faster"
    return "faster" if custom_kernel else "no custom kernel"


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the mean, as for a figure over several seeds."""
    sample = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(0).integers(len(sample), size=(BOOTSTRAP_RESAMPLES, len(sample)))
    low, high = np.quantile(sample[picks].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


FAST_P_THRESHOLDS = (0.5, 1.0, 1.05, 1.5, 2.0)
"""The p of the fast_p that sweeps print and log."""


def fast_p(speedups: Sequence[float], p: float) -> float:
    """The share of tasks that are correct and more than `p` times as fast as the reference.

    KernelBench's metric: a task that was not solved has the speedup 0.0 here and counts in the
    denominator, so `fast_p(s, 0.0)` is the share of correct ones.
    """
    if not speedups:
        raise ValueError("fast_p of no tasks is not defined; pass one speedup per task, 0.0 where unsolved")
    return sum(value > p for value in speedups) / len(speedups)


def fast_p_by_threshold(speedups: Sequence[float]) -> dict[str, float]:
    """`fast_p` at each of `FAST_P_THRESHOLDS`, keyed as `"1.05"`."""
    return {str(p): fast_p(speedups, p) for p in FAST_P_THRESHOLDS}


def geometric_mean(speedups: Sequence[float]) -> float:
    """exp(mean(log(s))). Every value must be positive: leave unsolved tasks out and say how many."""
    if not speedups or min(speedups) <= 0.0:
        raise ValueError(f"the geometric mean needs positive values, not {list(speedups)[:10]}")
    return float(np.exp(np.mean(np.log(speedups))))
