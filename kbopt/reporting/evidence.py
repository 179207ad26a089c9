"""Why a measured kernel's speedup can be believed, in sentences: the same on the page and on the terminal.

One time is the headline: the median of single calls over all measurements. Every other figure says what it
is: another clock's, an estimate, or another protocol's.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kbopt.core.evaluations import KernelBenchVerdict, Result
from kbopt.core.outcomes import Measured, Roofline, Speedup, WorkloadTimes, outcome_name
from kbopt.core.proposals import Trial
from kbopt.core.protocol import ranked_by
from kbopt.core.scoring import Standing, mean_score, score_interval, standing
from kbopt.core.text import first_line
from kbopt.reporting.text import figure, plural, ranked_over, speedup_text

_AGREEMENT = 0.1
"""How far apart two clocks of one call may be, as a share of it, to be marked as agreeing."""

_ROUNDING = 0.001
"""Samples are rounded to a nanosecond: a smaller share of a call is no difference."""

HELD_OUT_SHARE = 0.9
"""Of the speedup on the others: less on workloads that were held out speaks for a kernel tuned to what was
seen. A tenth is what two clocks of one call may differ by, too."""

_CAST_NOTE = "Its protocol casts every input to floating point, integers and masks too."


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """One reason. `good` is None where it speaks neither for the speedup nor against it."""

    name: str
    good: bool | None
    text: str


def evidence(trial: Trial) -> tuple[Belief, ...]:
    """The reasons for the trial's speedup and against it; none for one that was never measured.

    Other baselines and KernelBench's verdict are those of its full evaluation where there is one.
    """
    found = standing(trial)
    measured = [result for result in trial.judged if isinstance(result.outcome, Measured)]
    return tuple(_beliefs(found, measured[-1], trial)) if found else ()


def speedups_of(trial: Trial) -> tuple[Speedup, ...]:
    """Over every baseline that was asked for: by the full evaluation, else by the last of the measurements by
    which the trial is scored.
    """
    measured = _measured(trial)
    return measured[-1].speedups if measured else ()


def equal_code_of(trial: Trial) -> Speedup | None:
    """What the task's own model was measured at over itself, None where nobody asked."""
    return next((found.equal_code for found in reversed(_measured(trial)) if found.equal_code), None)


def roofline_of(trial: Trial) -> Roofline | None:
    """What a call costs at the least, by the last evaluation whose floor is not passed."""
    told = (found.roofline for found in reversed(_measured(trial)) if not found.passes_floor)
    return next((roofline for roofline in told if roofline), None)


def workloads_of(trial: Trial) -> tuple[WorkloadTimes, ...]:
    """By workload, of the last evaluation, which at the end judges those that were held out, too."""
    measured = _measured(trial)
    return measured[-1].workloads if measured else ()


def faster_text(best: Trial, finalists: Iterable[Trial]) -> str:
    """What surely measured faster at the end than `best`, which was submitted; empty for nothing."""
    other = max((one for one in finalists if not one.is_refuted), key=mean_score, default=best)
    interval = score_interval(other)
    if interval[0] <= score_interval(best)[1]:
        return ""
    figures = speedup_text(mean_score(other), interval)
    return f"{other.candidate.id} measured faster at the end, {figures}; {best.candidate.id} was submitted"


def final_fault(trial: Trial) -> str:
    """What the winner's full evaluation found wrong with it, such as on a workload that was held out; empty
    where it found nothing.
    """
    outcome = trial.full.outcome if trial.full else None
    if outcome is None or isinstance(outcome, Measured):
        return ""
    return f"{outcome_name(outcome)}: {first_line(outcome.reason, 200)}"


def workloads_text(trial: Trial) -> str:
    """The worst workload, and how those that were held out compare with the others; empty where a task names
    none.
    """
    found = next(iter(reversed(_measured(trial))), None)
    worst = found.worst if found else None
    if found is None or worst is None:
        return ""
    text = f"the worst is {worst.name}, {speedup_text(worst.speedup, worst.interval)}"
    counted, unseen = found.mean_of("shown", "hidden"), found.mean_of("held_out")
    if unseen is None or counted is None:
        return text
    return f"{text}; held out {figure(unseen)}x, the others {figure(counted)}x"


def _measured(trial: Trial) -> list[Measured]:
    """By the order of what they say last: measurements of the search, then the full evaluation."""
    results = (*trial.judged, *([trial.full] if trial.full else []))
    return [result.outcome for result in results if isinstance(result.outcome, Measured)]


def verdict_of(trial: Trial) -> KernelBenchVerdict | None:
    """KernelBench's, the last one that was asked for."""
    results = (*trial.judged, *([trial.full] if trial.full else []))
    return next((result.kernelbench for result in reversed(results) if result.kernelbench), None)


def strongest(speedups: Sequence[Speedup], protocol: str) -> Speedup | None:
    """The smallest of these by the clock of the protocol with this id, but for what it ranks by."""
    baseline, clock = ranked_by(protocol)
    others = [s for s in speedups if s.clock == clock and s.baseline != baseline and not s.reason]
    return min(others, key=lambda s: s.speedup, default=None)


def _beliefs(found: Standing, last: Result, trial: Trial) -> Iterator[Belief]:
    outcome = last.outcome
    if not isinstance(outcome, Measured):
        raise TypeError("only a measured result is evidence")
    yield _interval(found.speedup_ci, ranked_over(last))
    times = plural(found.measurements, "measurement")
    text = (
        f"A call takes {_ms(found.kernel_ms)} instead of {_ms(found.reference_ms)}: the medians of single "
        f"calls, each on new inputs, in {times}."
    )
    yield Belief(name="time", good=True if found.measurements > 1 else None, text=text)
    if outcome.native_ms is not None:
        yield _clocks(outcome, outcome.native_ms)
    if outcome.roofline:
        yield _floor(outcome.roofline, found.kernel_ms)
    yield from _audit(outcome)
    yield from _full(trial)
    yield from _workloads(_measured(trial)[-1])
    yield from dict.fromkeys(map(_over, speedups_of(trial)))  # by either clock a reason is the same
    if equal_code := equal_code_of(trial):
        yield _equal_code(equal_code)
    if verdict := verdict_of(trial):
        yield _kernelbench(verdict)


def _full(trial: Trial) -> Iterator[Belief]:
    """What became of the winner's full evaluation, which is a measurement of its own."""
    name, outcome = "full evaluation", trial.full.outcome if trial.full else None
    if isinstance(outcome, Measured):
        again = speedup_text(outcome.speedup, outcome.speedup_ci)
        text = (
            f"Evaluated once more, beside every baseline, it was {again}; what follows is of that evaluation."
        )
        yield Belief(name=name, good=None, text=text)
    elif outcome:
        how, reason = outcome_name(outcome), first_line(outcome.reason, 200).rstrip(".")
        text = f"Evaluated once more, beside every baseline, it was {how}: {reason}."
        yield Belief(name=name, good=False, text=text)
    elif trial.why_no_full:
        reason = trial.why_no_full.rstrip(".")
        text = f"It was not measured beside every baseline, nor by KernelBench's own protocol: {reason}."
        yield Belief(name=name, good=None, text=text)


def _workloads(found: Measured) -> Iterator[Belief]:
    """On which of a task's workloads it is how fast, and whether it is on those that nobody saw."""
    worst, counted, unseen = found.worst, found.mean_of("shown", "hidden"), found.mean_of("held_out")
    if worst is None or counted is None:
        return
    each = ", ".join(
        f"{w.name} ({w.role.replace('_', ' ')}) {speedup_text(w.speedup, w.interval)}"
        for w in found.workloads
    )
    text = f"By workload, over eager: {each}. The worst is {worst.name}."
    yield Belief(name="workloads", good=worst.interval[0] > 1, text=text)
    if unseen is not None:
        text = (
            f"On the workloads that were held out it is {figure(unseen)}x over eager, on the others "
            f"{figure(counted)}x: {figure(unseen / counted)} times as much."
        )
        yield Belief(name="held out", good=unseen > HELD_OUT_SHARE * counted, text=text)


def _over(speedup: Speedup) -> Belief:
    """The last measurement's speedup over one baseline, by the same timer as the kernel's own time."""
    if speedup.reason:
        text = f"No {speedup.baseline} baseline: {speedup.reason.rstrip('.')}."
        return Belief(name=f"over {speedup.baseline}", good=None, text=text)
    clock = "by the device's work" if speedup.clock == "device" else "by the latency of a synchronised call"
    name = f"over {speedup.baseline}, {speedup.clock}"
    low, high = speedup.interval
    text = (
        f"{figure(speedup.speedup)}x [{figure(low)}, {figure(high)}] over {speedup.baseline} {clock}: "
        f"{_ms(speedup.kernel_ms)} instead of {_ms(speedup.baseline_ms)}."
    )
    return Belief(name=name, good=low > 1, text=text)


def _equal_code(found: Speedup) -> Belief:
    if found.reason:
        text = f"Equal code was not measured: {found.reason.rstrip('.')}."
        return Belief(name="equal code", good=None, text=text)
    low, high = found.interval
    steady = low <= 1 <= high
    text = f"This machine calls equal code, the task's own model as a candidate, {equal_code_text(found)}."
    if not steady:
        text += " That leaves out 1: other work ran beside it, or figures here differ by more than they say."
    return Belief(name="equal code", good=steady, text=text)


def equal_code_text(found: Speedup) -> str:
    """`1.02x [0.93, 1.11]`, or why there is none."""
    return found.reason or speedup_text(found.speedup, found.interval)


def _interval(ends: tuple[float, float], over: str) -> Belief:
    low, high = ends
    meaning = "lies above 1"
    if low <= 1:
        slower = f"lies below 1: it is slower than {over}"
        meaning = "holds 1: it may be no faster" if high >= 1 else slower
    return Belief(
        name="interval",
        good=low > 1,
        text=f"The 95 % interval, {figure(low)} to {figure(high)}, {meaning}.",
    )


def _clocks(outcome: Measured, native_ms: float) -> Belief:
    """The candidate's process reads one clock; the judge, which it cannot reach, others.

    What those found beyond the first is in every sample of `kernel_ms`.
    """
    more_ms = statistics.median(outcome.kernel_ms) - native_ms
    seen = "the judge's clocks found nothing more"
    if more_ms > _ROUNDING * native_ms:
        seen = f"the judge's clocks found {more_ms:.3g} ms more, which the time above includes"
    return Belief(
        name="second clock",
        good=more_ms < _AGREEMENT * native_ms,
        text=f"In the last measurement the candidate's process said {_ms(native_ms)}; {seen}.",
    )


def _floor(roofline: Roofline, kernel_ms: float) -> Belief:
    share = roofline.floor_ms / kernel_ms
    if share > 1:
        text = (
            f"The kernel takes less than the {_ms(roofline.floor_ms)} that this device was estimated to need "
            "at least: the estimate says nothing here."
        )
        return Belief(name="estimated floor", good=None, text=text)
    text = (
        f"By estimate this device needs at least {_ms(roofline.floor_ms)}, {share:.0%} of the kernel's time."
    )
    if roofline.operations_count:
        text += (
            f" The reference's own operations need {_ms(roofline.reference_ops_ms)} at its arithmetic's peak"
            f"{'; the kernel does fewer, or cheaper ones' if roofline.is_outdone(kernel_ms) else ''}."
        )
    return Belief(name="estimated floor", good=None, text=text)


def _audit(outcome: Measured) -> Iterator[Belief]:
    audit = outcome.audit
    own = "a kernel of its own" if audit.custom_kernel else "only PyTorch's own operators"
    yield Belief(name="audit", good=audit.custom_kernel, text=f"The audit saw {own}.")
    inside = ", ".join(audit.torch_ops) or "none"
    yield Belief(name="PyTorch inside", good=None, text=f"PyTorch operators inside: {inside}.")
    for note in audit.notes:
        yield Belief(name="note", good=False if note.startswith("No sandbox") else None, text=note)


def kernelbench_text(verdict: KernelBenchVerdict) -> str:
    """`correct, 0.45 ms instead of 3.2 ms, every call on the same inputs`: its times are of other inputs than
    kbopt's, the same ones for each call; -1 means that it took none.
    """
    said = "correct" if verdict.correctness else "not correct"
    if verdict.correctness and min(verdict.runtime, verdict.ref_runtime) >= 0:
        said += (
            f", {_ms(verdict.runtime)} instead of {_ms(verdict.ref_runtime)}, every call on the same inputs"
        )
    elif verdict.correctness:
        said += ", not timed"
    return said


def _kernelbench(verdict: KernelBenchVerdict) -> Belief:
    text = f"By KernelBench's own protocol: {kernelbench_text(verdict)}."
    if not verdict.correctness:
        reason = first_line(verdict.reason, 200)
        text += f" {reason.rstrip('.')}." if reason else ""
        text += f" {_CAST_NOTE}"
    return Belief(name="KernelBench", good=verdict.correctness, text=text)


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.4g} ms"
