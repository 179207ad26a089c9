"""What a kernel's figures on each of a task's workloads say together. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from kbopt.core.types import Audit, EvalProtocol, Measured, Roofline, Speedup, WorkloadTimes
from kbopt.core.workloads import Workload

_MOST_CALLS = 2.5
"""Times the calls of one workload, all of them together: eight workloads are to cost three times as much as
one at the most, and what each costs besides its calls is the rest."""
_FEWEST_TRIALS = 2
_FEWEST_TIMED = 10
"""Calls of each: with fewer the clocks cannot be compared, see `samples`."""


def share_of(num_workloads: int) -> float:
    """Of the checks and timed calls of a task's only workload, what each of several gets."""
    return min(1.0, _MOST_CALLS / num_workloads)


def protocol_of_each(protocol: EvalProtocol, num_workloads: int) -> EvalProtocol:
    """For one workload of several, which share the calls."""
    share = share_of(num_workloads)
    if share == 1.0:
        return protocol
    return replace(
        protocol,
        trials=min(protocol.trials, max(_FEWEST_TRIALS, math.ceil(share * protocol.trials))),
        timed=min(protocol.timed, max(_FEWEST_TIMED, math.ceil(share * protocol.timed))),
    )


def combined(workloads: Sequence[Workload], found: Sequence[Measured]) -> Measured:
    """Of one kernel, measured on each of the workloads in their order; of a task's only one as it is.

    Times and speedups are weighted geometric means over those that are not held out. So are the ends of the
    interval: what differs between processes is the same for all workloads of one, so that nothing averages
    out; where it is not the same, the interval is wider than it had to be.
    """
    if len(found) == 1 and not workloads[0].name:
        return found[0]
    table = tuple(map(_times, workloads, found))
    judged = [(w.weight, m) for w, m in zip(workloads, found, strict=True) if w.role != "held_out"]
    weights, parts = [weight for weight, _ in judged], [part for _, part in judged]
    over = tuple(
        _mean_speedup(weights, [_same(part, speedup) for part in parts]) for speedup in parts[0].speedups
    )
    return Measured(
        kernel_ms=_mean_samples(weights, [part.kernel_ms for part in parts]),
        reference_ms=_mean_samples(weights, [part.reference_ms for part in parts]),
        speedup=mean(weights, [part.speedup for part in parts]),
        speedup_ci=(
            mean(weights, [part.speedup_ci[0] for part in parts]),
            mean(weights, [part.speedup_ci[1] for part in parts]),
        ),
        native_ms=mean(weights, [part.native_ms for part in parts]),
        wall_ms=mean(weights, [part.wall_ms for part in parts]),
        audit=_audit(workloads, found),
        roofline=_roofline(weights, [part.roofline for part in parts]),
        speedups=over,
        workloads=table,
    )


def mean(weights: Sequence[float], values: Sequence[float]) -> float:
    """The weighted geometric mean; zero where a value is."""
    if min(values) <= 0:
        return 0.0
    total = sum(w * math.log(value) for w, value in zip(weights, values, strict=True))
    return math.exp(total / sum(weights))


def _times(workload: Workload, found: Measured) -> WorkloadTimes:
    kernel_ms, reference_ms = found.call_ms
    return WorkloadTimes(
        name=workload.name,
        role=workload.role,
        weight=workload.weight,
        kernel_ms=kernel_ms,
        reference_ms=reference_ms,
        speedup=found.speedup,
        interval=found.speedup_ci,
        floor_ms=found.roofline.floor_ms if found.roofline else 0.0,
    )


def _mean_samples(weights: Sequence[float], samples: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """The mean of the first call of each, of the second, and so on, as far as all go; then scaled so that
    their median is the mean of the medians.
    """
    means = [mean(weights, calls) for calls in zip(*samples, strict=False)]
    middle = mean(weights, [median(calls) for calls in samples])
    scale = middle / median(means) if median(means) else 1.0
    return tuple(round(scale * ms, 6) for ms in means)


def _same(part: Measured, speedup: Speedup) -> Speedup:
    found = part.over(speedup.baseline, speedup.clock)
    assert found is not None
    return found


def _mean_speedup(weights: Sequence[float], parts: Sequence[Speedup]) -> Speedup:
    return replace(
        parts[0],
        baseline_ms=mean(weights, [part.baseline_ms for part in parts]),
        kernel_ms=mean(weights, [part.kernel_ms for part in parts]),
        speedup=mean(weights, [part.speedup for part in parts]),
        interval=(
            mean(weights, [part.interval[0] for part in parts]),
            mean(weights, [part.interval[1] for part in parts]),
        ),
    )


def _audit(workloads: Sequence[Workload], found: Sequence[Measured]) -> Audit:
    """Operations of all; notes that all share once, others with their workload's name."""
    notes: list[str] = []
    for workload, part in zip(workloads, found, strict=True):
        for note in part.audit.notes:
            is_shared = all(note in other.audit.notes for other in found)
            told = note if is_shared else f"{workload.name}: {note}"
            if told not in notes:
                notes.append(told)
    return Audit(
        custom_kernel=all(part.audit.custom_kernel for part in found),
        torch_ops=tuple(dict.fromkeys(op for part in found for op in part.audit.torch_ops)),
        notes=tuple(notes),
    )


def _roofline(weights: Sequence[float], parts: Sequence[Roofline | None]) -> Roofline | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return Roofline(
        size_bytes=round(mean(weights, [part.size_bytes for part in known])),
        operations=round(mean(weights, [part.operations for part in known])),
        floor_ms=mean(weights, [part.floor_ms for part in known]),
        share=mean(weights, [part.share for part in known]),
        reference_ops_ms=mean(weights, [part.reference_ops_ms for part in known]),
    )
