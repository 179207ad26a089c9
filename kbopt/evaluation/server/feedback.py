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
    Roofline,
    Speedup,
    TimedOut,
    WrongAnswer,
)
from kbopt.evaluation.transport.untrusted import one_line

MAX_CHARS = 4000
"""Characters of a feedback at most, because it becomes a part of prompts."""
_APART = 0.1
"""If two speedups of one kernel differ by more than this share, a line says why."""
_MOST_REASON = 200
"""Characters of KernelBench's reason, as the report cuts it."""
_OTHER_RULES = (
    "It constructs the kernel under the reference's seed and copies no weights, casts every input to the "
    "task's precision, and compares with the reference's own answer within a fixed tolerance."
)
"""What KernelBench does otherwise to a kernel that the strict verdict finds correct."""

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
    if verdict is not None:
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
            f"bandwidth: {_nearness(measured, work)}."
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


def _nearness(measured: Measured, work: Roofline) -> str:
    if measured.passes_floor:
        return (
            "the kernel takes less, because a cache holds a part of them or other work took bandwidth while "
            "that was measured, so this is no bound"
        )
    return f"the kernel reaches {work.share:.0%} of that"


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


def verdicts_apart(outcome: Outcome, verdict: KernelBenchVerdict) -> list[str]:
    """Say in a line why KernelBench's own verdict, or its speedup by more than a tenth, is another one."""
    told = "KernelBench's own verdict is"
    if not isinstance(outcome, Measured):
        if not verdict.correctness:
            return []
        faster = f" and {_ratio(verdict):.3g}x" if verdict.runtime > 0 else ""
        return [f"{told} that this is correct{faster}. {_passed_over(outcome)}"]
    if not verdict.correctness:
        trials = str(verdict.metadata.get("correctness_trials", ""))
        said = one_line(f"{verdict.reason.rstrip('.')} {trials}", _MOST_REASON)
        return [f"{told} that this is not correct: {said or 'its process did not say why'}. {_OTHER_RULES}"]
    if verdict.runtime <= 0:
        return [f"{told} that this is correct, without a time: its process sent none that can be read."]
    return _times_apart(outcome, verdict, f"{told} {_ratio(verdict):.3g}x")


def _passed_over(outcome: Outcome) -> str:
    """Return why KernelBench may call a kernel correct that has this outcome."""
    match outcome:
        case Rejected(family=family):
            return f"It does not look for {family}."
        case WrongAnswer():
            return (
                "It compares a few answers to the inputs of public seeds with the reference's own, within a "
                "tolerance that does not depend on how large the outputs are."
            )
    return "It runs the kernel in another process, where this did not happen."


def _times_apart(measured: Measured, verdict: KernelBenchVerdict, told: str) -> list[str]:
    """Explain another speedup. Of several workloads KernelBench runs the first that is shown."""
    ratio, ours = _ratio(verdict), measured.over("eager", "device")
    shown = next((workload for workload in measured.workloads if workload.role == "shown"), None)
    if ours is None or not _differ(ratio, ours.speedup):
        return []
    if shown is not None and not _differ(ratio, shown.speedup):
        return [f"{told}: it is of the workload {shown.name} alone."]
    kernel_ms, reference_ms = ours.kernel_ms, ours.baseline_ms
    if shown is not None:
        told = f"{told}, of the workload {shown.name} alone"
        kernel_ms, reference_ms = shown.kernel_ms, shown.reference_ms
    return [
        f"{told}: it takes {verdict.runtime:.3g} ms for the kernel in place of {kernel_ms:.3g} ms, and "
        f"{verdict.ref_runtime:.3g} ms for the reference in place of {reference_ms:.3g} ms. Its times are "
        "means, not medians, of calls on the same inputs, and hold launching and what else the machine did."
    ]


def _ratio(verdict: KernelBenchVerdict) -> float:
    return verdict.ref_runtime / verdict.runtime


def _differ(one: float, other: float) -> bool:
    return max(one, other) > (1 + _APART) * min(one, other)
