"""Feedback for the next attempt: text about what was observed, of at most `MAX_CHARS` characters."""

from __future__ import annotations

from kbopt.core.evaluations import KernelBenchVerdict
from kbopt.core.outcomes import (
    CompileFailed,
    Crashed,
    Family,
    Measured,
    Outcome,
    Rejected,
    Speedup,
    TimedOut,
    WrongAnswer,
)

MAX_CHARS = 4000
"""Characters of a feedback at most, because it becomes a part of prompts."""
_APART = 0.1
"""If two speedups of one kernel differ by more than this share, a line says why."""

NO_SANDBOX_NOTE = (
    "No sandbox: this machine did not isolate the candidate, which could have disturbed its judge."
)
"""The report recognises this note by its first words and shows it in red."""
_REMEDIES: dict[Family, str] = {
    "precision_downgrade": "Compute and accumulate at the task's precision. Splits that keep its accuracy, "
    "such as 3xTF32 and bf16x9, are accepted where the output shows it.",
    "timing_mismatch": "Finish all work before forward returns, and start none before it is called.",
    "input_mutation": "Write to memory that the kernel allocated itself.",
    "aliased_input": "Return newly allocated memory.",
    "reused_output": "Allocate the output in every call: a caller may still hold the previous one.",
    "output_layout": "Return a tensor whose elements all have their own memory, as the reference does.",
    "extra_threads": "Use as many threads as torch.get_num_threads() says.",
    "output_type": "Return plain torch.Tensor objects in the structure that the reference returns.",
    "implausible": "Do the work in every call.",
    "torch_ops": "Write the computation as a kernel of your own.",
    "value_specialisation": "Take nothing for granted of the inputs' values that the task does not promise: "
    "neither their size, nor their order, nor that they differ.",
    "forged_verdict": "Leave the process's descriptors and the evaluation's modules alone.",
}


def for_outcome(
    outcome: Outcome, frames: str = "", log: str = "", verdict: KernelBenchVerdict | None = None
) -> str:
    """Return the feedback for an outcome.

    `frames` are the lines of a traceback in the candidate's source, `log` is the output of its process or of
    the compiler, and `verdict` is KernelBench's if asked for.
    """
    text = _headline(outcome)
    if isinstance(outcome, Measured) and verdict is not None:
        text = "\n".join([text, *verdicts_apart(outcome, verdict)])
    if frames:
        text += f"\nIn the candidate's source:\n{frames}"
    if log and not isinstance(outcome, Measured):
        text += f"\nOutput:\n{log[-1500:]}"
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"


def _headline(outcome: Outcome) -> str:
    match outcome:
        case Measured():
            return _success(outcome)
        case WrongAnswer(reason=reason):
            return f"Wrong answer. {reason}."
        case CompileFailed(reason=reason):
            return f"It could not be built. {reason}"
        case Crashed(reason=reason, how=how):
            return f"It crashed ({how}). {reason}"
        case TimedOut(reason=reason, stage=stage, limit_s=limit_s):
            return f"Stopped in stage {stage} after {limit_s:g} s. {reason}."
        case Rejected(reason=reason, family=family):
            return f"Rejected as {family}: {reason}. {_REMEDIES[family]}"


def _success(measured: Measured) -> str:
    low, high = measured.speedup_ci
    kernel, reference = measured.call_ms
    lines = [
        f"Correct. Kernel {kernel:.4g} ms, reference {reference:.4g} ms: "
        f"{measured.speedup:.3g}x (95 % interval {low:.3g} to {high:.3g})."
    ]
    if measured.roofline is not None and not measured.workloads:
        work = measured.roofline
        line = (
            f"To move its {work.size_bytes / 1e6:.4g} MB once takes {work.floor_ms:.4g} ms at the device's "
            f"bandwidth: the kernel reaches {work.share:.0%} of that."
        )
        if work.operations_limit(kernel):
            line += " What limits it is arithmetic, not bytes."
        if work.operations_count:
            less = (
                "the kernel is faster, so it does fewer operations or cheaper ones."
                if work.is_outdone(kernel)
                else "a better algorithm or a split onto other units needs less."
            )
            line += (
                f" The reference's own {work.operations / 1e6:.4g} million operations need "
                f"{work.reference_ops_ms:.4g} ms at its arithmetic's peak; {less}"
            )
        lines.append(line)
    lines += _by_workload(measured)
    lines += [_over(speedup) for speedup in measured.speedups if speedup.baseline != "eager"]
    if measured.equal_code is not None:
        lines.append(_equal_code(measured.equal_code))
    lines += _clocks_apart(measured)
    lines.extend(measured.audit.notes)
    return "\n".join(lines)


def _by_workload(measured: Measured) -> list[str]:
    """Return a table of speedups over eager PyTorch, and a comparison of held-out with other workloads."""
    if not measured.workloads:
        return []
    width = max(len(workload.name) for workload in measured.workloads)
    lines = ["Times and speedups are geometric means over the workloads that count. Each over eager:"]
    for workload in measured.workloads:
        marks = [workload.role.replace("_", " ")]
        marks += [f"weight {workload.weight:g}"] if workload.weight != 1.0 else []
        marks += ["worst"] if workload is measured.worst else []
        marks += [f"floor {workload.floor_ms:.4g} ms"] if workload.role == "shown" else []
        low, high = workload.interval
        lines.append(
            f"  {workload.name:{width}}  {workload.kernel_ms:8.4g} ms, eager {workload.reference_ms:8.4g} "
            f"ms: {workload.speedup:.3g}x [{low:.3g}, {high:.3g}]; {', '.join(marks)}"
        )
    unseen, counted = measured.mean_of("held_out"), measured.mean_of("shown", "hidden")
    if unseen is not None and counted is not None:
        times = f"{unseen / counted:.2f} times as much"
        lines.append(f"Held out, which counts in no mean, {unseen:.3g}x; the others {counted:.3g}x: {times}.")
    return lines


def _over(speedup: Speedup) -> str:
    if speedup.reason:
        return f"Over {speedup.baseline} ({speedup.clock}): not measured, {speedup.reason}."
    low, high = speedup.interval
    return (
        f"Over {speedup.baseline} ({speedup.clock}): {speedup.speedup:.3g}x [{low:.3g}, {high:.3g}], "
        f"{speedup.baseline_ms:.4g} ms."
    )


def _equal_code(found: Speedup) -> str:
    if found.reason:
        return f"Equal code was not measured: {found.reason}."
    low, high = found.interval
    return (
        f"This machine calls equal code, the task's own model as a candidate, {found.speedup:.3g}x "
        f"[{low:.3g}, {high:.3g}]."
    )


def _clocks_apart(measured: Measured) -> list[str]:
    """Explain the difference between latency and device time if the two speedups differ by a tenth."""
    device, latency = measured.over("eager", "device"), measured.over("eager", "latency")
    if device is None or latency is None or not _differ(device.speedup, latency.speedup):
        return []
    return [
        f"By latency it is {latency.speedup:.3g}x, by the device's work {device.speedup:.3g}x: of one "
        f"synchronised call {max(0.0, latency.kernel_ms - device.kernel_ms):.3g} ms are launching and "
        f"waiting, of the reference's {max(0.0, latency.baseline_ms - device.baseline_ms):.3g} ms."
    ]


def verdicts_apart(measured: Measured, verdict: KernelBenchVerdict) -> list[str]:
    """Explain why KernelBench's own verdict gives another speedup, if the two differ by a tenth."""
    device = measured.over("eager", "device")
    if (
        device is None
        or verdict.runtime <= 0
        or not _differ(verdict.ref_runtime / verdict.runtime, device.speedup)
    ):
        return []
    more_ms, reference_ms = verdict.runtime - device.kernel_ms, verdict.ref_runtime - device.baseline_ms
    return [
        f"KernelBench's own verdict is {verdict.ref_runtime / verdict.runtime:.3g}x: its times hold "
        f"{more_ms:.3g} ms more of the kernel and {reference_ms:.3g} ms more of the reference (launching, "
        "warm inputs, mean instead of median)."
    ]


def _differ(one: float, other: float) -> bool:
    return max(one, other) > (1 + _APART) * min(one, other)
