"""The verdicts of KernelBench's protocol, as the supervisor makes them. No torch."""

from __future__ import annotations

from typing import Any

from kbopt.core.evaluations import KernelBenchVerdict
from kbopt.core.outcomes import CompileFailed, Crashed, Outcome, TimedOut
from kbopt.evaluation.transport.untrusted import MAX_TEXT, clean, finite, one_line

EXCESSIVE_SPEEDUP = 10.0
"""A larger speedup sets KernelBench's flag `excessive_speedup`, with KernelBench's own threshold."""
_MOST_FIELDS = 20
"""Fields of a mapping, and items of a list, that are kept. KernelBench's own have ten at most."""


def kernelbench_from(fields: Any) -> KernelBenchVerdict:
    """Return a verdict from a child's fields. They are not trusted: fields of a wrong type are left out."""
    raw = fields if isinstance(fields, dict) else {}
    correct, runtime = raw.get("correctness") is True, finite(raw.get("runtime")) or 0.0
    stats, reference = (_figures(raw.get(key)) for key in ("runtime_stats", "ref_runtime_stats"))
    mean = finite(reference.get("mean")) or 0.0
    metadata = _plain(raw.get("metadata"))
    compiled = raw.get("compiled") is True
    if not (correct and runtime > 0 and mean > 0):
        return KernelBenchVerdict(compiled=compiled, correctness=correct, metadata=metadata)
    if mean > EXCESSIVE_SPEEDUP * runtime:
        metadata["excessive_speedup"] = True
    return KernelBenchVerdict(
        compiled=compiled,
        correctness=True,
        metadata=metadata,
        runtime=runtime,
        runtime_stats=stats,
        ref_runtime=mean,
        ref_runtime_stats=reference,
    )


def kernelbench_failure(outcome: Outcome, hardware: str, device: str) -> KernelBenchVerdict:
    """Return the verdict that KernelBench gives to a candidate that did not run to its end."""
    compiled = not isinstance(outcome, CompileFailed) and not (
        isinstance(outcome, TimedOut) and outcome.stage == "compile"
    )
    key = "runtime_error" if compiled else "compilation_error"
    name = outcome.how if isinstance(outcome, Crashed) else type(outcome).__name__
    reason = getattr(outcome, "reason", "")
    return KernelBenchVerdict(
        compiled=compiled,
        correctness=False,
        metadata={"hardware": hardware, "device": device, key: reason[:MAX_TEXT], f"{key}_name": name},
    )


def _figures(raw: Any) -> dict[str, object]:
    if not isinstance(raw, dict):
        return {}
    return {
        one_line(key): value for key, value in list(raw.items())[:_MOST_FIELDS] if finite(value) is not None
    }


def _plain(raw: Any) -> dict[str, object]:
    """Return the strings and lists of strings in `raw`, cleaned."""
    if not isinstance(raw, dict):
        return {}
    plain: dict[str, object] = {}
    for key, value in list(raw.items())[:_MOST_FIELDS]:
        if isinstance(value, str):
            plain[one_line(key)] = clean(value)
        elif isinstance(value, list):
            plain[one_line(key)] = [one_line(item) for item in value[:_MOST_FIELDS] if isinstance(item, str)]
    return plain
