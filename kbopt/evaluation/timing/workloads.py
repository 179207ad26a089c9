"""One result from a kernel's results on each of a task's workloads. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from kbopt.core.outcomes import Audit, Measured, Roofline, Speedup, WorkloadTimes
from kbopt.core.protocol import EvalProtocol
from kbopt.core.workloads import Workload

_MOST_CALLS = 2.5
"""All workloads of a task together get at most this many times the calls of a task with one workload. Eight
workloads should cost at most three times as much as one; each also costs time besides its calls."""
_FEWEST_TRIALS = 2
"""Checks of each workload at least."""
_FEWEST_TIMED = 10
"""Timed calls of each workload at least: quartiles of fewer say little."""


def share_of(num_workloads: int) -> float:
    """Return the share of the protocol's checks and timed calls that each of `num_workloads` gets."""
    return min(1.0, _MOST_CALLS / num_workloads)


def protocol_of_each(protocol: EvalProtocol, num_workloads: int) -> EvalProtocol:
    """Return the protocol of one workload of `num_workloads`, which share the checks and the timed calls."""
    share = share_of(num_workloads)
    if share == 1.0:
        return protocol
    return replace(
        protocol,
        trials=min(protocol.trials, max(_FEWEST_TRIALS, math.ceil(share * protocol.trials))),
        timed=min(protocol.timed, max(_FEWEST_TIMED, math.ceil(share * protocol.timed))),
    )


def combined(workloads: Sequence[Workload], found: Sequence[Measured]) -> Measured:
    """Return one result from those `found` on each of `workloads`, in the same order.

    The result of an only, unnamed workload is returned unchanged. Times, speedups and the ends of the
    interval are weighted geometric means over the workloads that are not held out. The interval does not
    narrow with the number of workloads: all of them run in one process, so what differs between processes
    does not average out. Where it differs between workloads, the interval is wider than necessary.
    """
    if len(found) == 1 and not workloads[0].name:
        return found[0]
    table = tuple(map(_times, workloads, found))
    judged = [(w.weight, m) for w, m in zip(workloads, found, strict=True) if w.role != "held_out"]
    weights, parts = [weight for weight, _ in judged], [part for _, part in judged]
    natives = [part.native_ms for part in parts if part.native_ms is not None]
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
        native_ms=mean(weights, natives) if natives else None,
        wall_ms=mean(weights, [part.wall_ms for part in parts]),
        audit=_audit(workloads, found),
        roofline=_roofline(weights, [part.roofline for part in parts]),
        speedups=over,
        workloads=table,
    )


def mean(weights: Sequence[float], values: Sequence[float]) -> float:
    """Return the weighted geometric mean, or zero if a value is zero or less."""
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
    """Return as many times as the shortest of `samples` has.

    Time i is the weighted mean of call i of all. All are then scaled so that their median is the mean of the
    medians.
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
    """Join the audits. A note that all share stands once; any other begins with its workload's name."""
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
