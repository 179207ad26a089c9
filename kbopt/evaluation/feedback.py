"""Text that helps the next attempt: what was seen, in terms of the candidate's own source, bounded."""

from __future__ import annotations

from statistics import median

from kbopt.core.types import (
    CompileFailed,
    Crashed,
    Measured,
    Outcome,
    Rejected,
    TimedOut,
    WrongAnswer,
)

MAX_CHARS = 4000

_REMEDIES = {
    "precision_downgrade": "Compute and accumulate at the task's precision, without TF32 or half types.",
    "timing_mismatch": "Finish all work before forward returns, and start none before it is called.",
    "input_mutation": "Write to memory that the kernel allocated itself.",
    "aliased_input": "Return newly allocated memory.",
    "reused_output": "Allocate the output in every call; a caller may still hold the previous one.",
    "output_layout": "Return a tensor whose elements all have their own memory, as the reference does.",
    "extra_threads": "Use as many threads as torch.get_num_threads() says.",
    "output_type": "Return plain torch.Tensor objects in the structure that the reference returns.",
    "implausible": "Do the work in every call.",
    "torch_ops": "Write the computation as a kernel of your own.",
    "forged_verdict": "Leave the process's descriptors and the evaluation's modules alone.",
}


def for_outcome(outcome: Outcome, frames: str = "", log: str = "") -> str:
    """`frames` are the candidate's own lines of a traceback, `log` what the process or compiler printed."""
    text = _headline(outcome)
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
            return f"Rejected as {family}: {reason}. {_REMEDIES.get(family, '')}".rstrip()


def _success(measured: Measured) -> str:
    low, high = measured.speedup_ci
    kernel, reference = median(measured.kernel_ms), median(measured.reference_ms)
    lines = [
        f"Correct. Kernel {kernel:.4g} ms, reference {reference:.4g} ms: "
        f"{measured.speedup:.3g}x (95 % interval {low:.3g} to {high:.3g})."
    ]
    if measured.roofline is not None:
        work = measured.roofline
        lines.append(
            f"A call moves at least {work.size_bytes / 1e6:.4g} MB and does {work.operations / 1e6:.4g} "
            f"million operations: {work.floor_ms:.4g} ms at the device's limits, of which it reaches "
            f"{work.share:.0%}."
        )
    if measured.compiled_reference_ms is not None:
        lines.append(f"torch.compile of the reference takes {measured.compiled_reference_ms:.4g} ms.")
    lines.extend(measured.audit.notes)
    return "\n".join(lines)
