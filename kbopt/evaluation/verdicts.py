"""Outcomes as KernelBench spells them, without torch: what the supervisor needs of that protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kbopt.core.types import CompileFailed, Crashed, EvalProtocol, KernelBenchVerdict, Outcome, TimedOut

EXCESSIVE_SPEEDUP = 10.0
UNTIMED_CALLS = 4
"""Three warm-ups, and a first time that KernelBench throws away."""
_MAX_TEXT = 2000


def kernelbench_from(raw: Mapping[str, Any], reference: Mapping[str, float]) -> KernelBenchVerdict:
    """The child's fields, checked for their types only, with the reference's times filled in."""
    correct = raw.get("correctness") is True
    runtime: Any = raw.get("runtime")
    stats = _figures(raw.get("runtime_stats"))
    metadata = _plain(raw.get("metadata"))
    timed = type(runtime) in (int, float) and math.isfinite(runtime) and runtime > 0
    measured = correct and timed and bool(reference)
    if measured and reference["mean"] / float(runtime) > EXCESSIVE_SPEEDUP:
        metadata["excessive_speedup"] = True
    return KernelBenchVerdict(
        compiled=raw.get("compiled") is True,
        correctness=correct,
        metadata=metadata,
        runtime=float(runtime) if measured else -1.0,
        runtime_stats=stats if measured else {},
        ref_runtime=reference["mean"] if measured else -1.0,
        ref_runtime_stats=dict(reference) if measured else {},
    )


def kernelbench_device_s(verdict: KernelBenchVerdict, protocol: EvalProtocol) -> float:
    """What the device spent on either model for a verdict that was timed, by its own mean times."""
    if verdict.runtime <= 0:
        return 0.0
    timed = verdict.runtime_stats.get("num_trials")
    timed = min(protocol.timed, max(0, timed)) if isinstance(timed, int) else protocol.timed
    calls = protocol.trials + UNTIMED_CALLS + timed
    return (calls * verdict.runtime + protocol.trials * verdict.ref_runtime) / 1000


def kernelbench_failure(outcome: Outcome, hardware: str, device: str) -> KernelBenchVerdict:
    """What KernelBench would say of a candidate that never ran to its end."""
    compiled = not isinstance(outcome, CompileFailed) and not (
        isinstance(outcome, TimedOut) and outcome.stage == "compile"
    )
    key = "runtime_error" if compiled else "compilation_error"
    name = outcome.how if isinstance(outcome, Crashed) else type(outcome).__name__
    reason = getattr(outcome, "reason", "")
    return KernelBenchVerdict(
        compiled=compiled,
        correctness=False,
        metadata={"hardware": hardware, "device": device, key: reason[:_MAX_TEXT], f"{key}_name": name},
        runtime=-1.0,
        runtime_stats={},
        ref_runtime=-1.0,
        ref_runtime_stats={},
    )


def raised_text(raised: Mapping[str, Any]) -> str:
    """An exception that a child described, as one text."""
    text = f"{raised.get('type', '')}: {raised.get('text', '')}"
    frames = str(raised.get("frames", ""))
    return f"{text}\n{frames}"[: 2 * _MAX_TEXT] if frames else text[: 2 * _MAX_TEXT]


def _figures(raw: Any) -> dict[str, object]:
    if not isinstance(raw, dict):
        return {}
    return {
        str(key)[:50]: value
        for key, value in list(raw.items())[:20]
        if type(value) in (int, float) and math.isfinite(value)
    }


def _plain(raw: Any) -> dict[str, object]:
    """Strings, numbers and lists of strings, bounded: metadata comes from an untrusted process."""
    if not isinstance(raw, dict):
        return {}
    plain: dict[str, object] = {}
    for key, value in list(raw.items())[:20]:
        if isinstance(value, str):
            plain[str(key)[:100]] = value[:_MAX_TEXT]
        elif isinstance(value, list):
            plain[str(key)[:100]] = [str(item)[:100] for item in value[:20]]
    return plain
