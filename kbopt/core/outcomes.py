"""What became of a candidate: measured, or one of the ways in which it failed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kbopt.core.protocol import Clock
from kbopt.core.workloads import Role

Stage = Literal["queue", "compile", "check", "time"]
Family = Literal[
    "aliased_input",
    "extra_threads",
    "forged_verdict",
    "implausible",
    "input_mutation",
    "output_layout",
    "output_type",
    "precision_downgrade",
    "reused_output",
    "timing_mismatch",
    "torch_ops",
    "value_specialisation",
]
"""Why a candidate is rejected; docs/evaluation.md says what each is."""


LEAST_OPERATIONS = 0.01
"""Share of the floor by bytes. Where operations need less, as the 1e-11 ms of a cross entropy do, no reader
needs to know of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """What a call costs at the least, and how near the kernel came to it.

    `floor_ms` is the time to read `size_bytes` of inputs and parameters once and write the outputs once, at
    the measured bandwidth. `share` is that floor over the kernel's time, at most 1: what a cache holds, or
    structure that need not be read, can make a kernel faster than it. `reference_ops_ms` is what the
    reference's own `operations` need at the peak of the task's arithmetic; a better algorithm, or a split
    onto other units, needs less.
    """

    size_bytes: int
    operations: int
    floor_ms: float
    share: float
    reference_ops_ms: float

    def is_outdone(self, kernel_ms: float) -> bool:
        """Whether a kernel is too fast to do the reference's operations: it does fewer, or cheaper ones."""
        return kernel_ms < self.reference_ops_ms

    def operations_limit(self, kernel_ms: float) -> bool:
        """Whether the reference's operations need longer than its bytes, and the kernel may do them."""
        return self.floor_ms < self.reference_ops_ms and not self.is_outdone(kernel_ms)

    @property
    def operations_count(self) -> bool:
        """Whether the reference's operations need so much that they are worth a word."""
        return self.reference_ops_ms >= LEAST_OPERATIONS * self.floor_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """How many times as fast the kernel is as one baseline by one clock, with its 95 % interval.

    `baseline` is `eager`, `compile`, `max-autotune` or `cuda-graph`; `clock` is `device` or `latency`.
    Milliseconds are medians of single calls. Where a baseline does not run, `reason` says why and the figures
    are zero.
    """

    baseline: str
    clock: Clock
    baseline_ms: float = 0.0
    kernel_ms: float = 0.0
    speedup: float = 0.0
    interval: tuple[float, float] = (0.0, 0.0)
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadTimes:
    """What a kernel and eager PyTorch take on one workload of several, by the device's clock.

    Milliseconds are medians of single calls, `interval` is the speedup's 95 % interval, and `floor_ms` what
    moving the workload's bytes once takes. What is `held_out` counts in no mean.
    """

    name: str
    role: Role
    weight: float
    kernel_ms: float
    reference_ms: float
    speedup: float
    interval: tuple[float, float]
    floor_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What was seen inside the candidate, for the reader to judge.

    `torch_ops` lists the ATen operations that computed something; `custom_kernel` is False for a
    candidate that only calls PyTorch. `notes` are sentences.
    """

    custom_kernel: bool
    torch_ops: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Correct, and timed against the reference in the same session.

    `kernel_ms` and `reference_ms` are samples of single calls, interleaved in blocks, by the device's clock.
    `speedup` is the one that ranks, by the protocol's baseline and clock: median(reference_ms) /
    median(kernel_ms) by default; `speedup_ci` is its 95 % interval. `wall_ms` is the candidate's median by
    the judge's clock, and on a GPU `native_ms` that by the worker's; a CPU has the first only. `speedups`
    are those over every baseline that was asked for, by either clock. `equal_code` is what the task's own
    model was measured at over itself, where the baselines were asked for: 1 outside of its interval says
    that this machine's figures are not steady.

    Of a task of several `workloads` all times and speedups are weighted geometric means over those that are
    not held out; the table has each by itself, and is empty for a task that names none.
    """

    kernel_ms: tuple[float, ...]
    reference_ms: tuple[float, ...]
    speedup: float
    speedup_ci: tuple[float, float]
    native_ms: float | None
    wall_ms: float
    audit: Audit
    roofline: Roofline | None = None
    speedups: tuple[Speedup, ...] = ()
    equal_code: Speedup | None = None
    workloads: tuple[WorkloadTimes, ...] = ()

    @property
    def worst(self) -> WorkloadTimes | None:
        """The workload with the least speedup, of those that count; None for a task that names none."""
        counted = (w for w in self.workloads if w.role != "held_out")
        return min(counted, key=lambda w: w.speedup, default=None)

    @property
    def passes_floor(self) -> bool:
        """Whether it is faster than its floor by bytes, or that of a workload. Such a floor is none:
        a cache holds a part of the bytes, or the bandwidth was measured while others used it.
        """
        if self.workloads:
            return any(workload.kernel_ms < workload.floor_ms for workload in self.workloads)
        return self.roofline is not None and self.call_ms[0] < self.roofline.floor_ms

    def mean_of(self, *roles: Role) -> float | None:
        """The weighted geometric mean of the speedups over eager on the workloads of these roles."""
        found = [w for w in self.workloads if w.role in roles]
        if not found or min(w.speedup for w in found) <= 0:
            return None
        total = sum(w.weight for w in found)
        return math.exp(sum(w.weight * math.log(w.speedup) for w in found) / total)

    def over(self, baseline: str, clock: Clock = "device") -> Speedup | None:
        """The speedup over that baseline, None where it was not asked for."""
        found = (s for s in self.speedups if s.baseline == baseline and s.clock == clock)
        return next(found, None)

    @property
    def call_ms(self) -> tuple[float, float]:
        """What one call of the kernel and one of the reference take: those whose quotient is the speedup over
        eager.
        """
        over = self.over("eager")
        if over is None:
            return statistics.median(self.kernel_ms), statistics.median(self.reference_ms)
        return over.kernel_ms, over.baseline_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongAnswer:
    """It ran and returned something else than the reference does."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileFailed:
    """It does not parse, import or build, or defines no `ModelNew`.

    `lasting` says that the next try would fail too, because Python or a compiler refuses the source itself.
    Other causes can go away: a missing header or package, a full disk.
    """

    reason: str
    lasting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Crashed:
    """It raised, or its process died. `how` is the exception's or the signal's name, or `exit N`."""

    reason: str
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut:
    """It did not finish `stage` within `limit_s` seconds, and was killed."""

    reason: str
    stage: Stage
    limit_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Its answers or its times cannot be believed."""

    reason: str
    family: Family


Outcome = Measured | WrongAnswer | CompileFailed | Crashed | TimedOut | Rejected

OUTCOME_NAMES: Mapping[type, str] = {
    Measured: "measured",
    WrongAnswer: "wrong_answer",
    CompileFailed: "compile_failed",
    Crashed: "crashed",
    TimedOut: "timed_out",
    Rejected: "rejected",
}


def outcome_name(outcome: Outcome) -> str:
    """The outcome as JSON and tables spell it: `measured`, `wrong_answer`, ..."""
    return OUTCOME_NAMES[type(outcome)]


_OF_THE_MACHINE = ("ModuleNotFoundError", "ImportError", "FileNotFoundError", "out of memory")
"""How a candidate crashes that wants something of its machine when it is called."""


def may_be_mended(outcome: Outcome) -> bool:
    """Whether the machine may be what failed, so that the same source has another outcome once it is mended:
    with a header, a compiler or a package installed, room on the disk, or more memory.
    """
    if isinstance(outcome, CompileFailed):
        return not outcome.lasting
    return isinstance(outcome, Crashed) and outcome.how in _OF_THE_MACHINE
