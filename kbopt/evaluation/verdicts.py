"""KernelBench's protocol as the supervisor sees it, without torch: the conversation with the child, and
outcomes as KernelBench spells them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from kbopt.core.types import CompileFailed, Crashed, KernelBenchVerdict, Outcome, TimedOut
from kbopt.evaluation.wire import Channel, Message

EXCESSIVE_SPEEDUP = 10.0
REPLY_LIMIT_BYTES = 2**20
_MAX_TEXT = 2000


class Late(Exception):
    """A child that did not answer in time."""


def converse(
    channel: Channel,
    request: Mapping[str, Any],
    lease: AbstractContextManager[Any],
    *,
    held_s: float,
    waited_s: float,
) -> tuple[Mapping[str, Any], float]:
    """Have a child judge by KernelBench's protocol. Its fields, and the seconds for which it had the device.

    It holds `lease` while it asks to, for `held_s` in all; what it does in between, such as drawing inputs,
    may take `waited_s`. Raises Late, ChannelClosed and WireError.
    """
    busy_s, waits_until = 0.0, time.monotonic() + waited_s
    channel.send(dict(request))
    while True:
        message = _await(channel, waits_until - time.monotonic())
        if "device" not in message:
            fields = message.get("fields")
            return (fields if isinstance(fields, dict) else {}), busy_s
        asked = time.monotonic()
        with lease:
            started = time.monotonic()
            channel.send({})
            _await(channel, held_s - busy_s)
            ended = time.monotonic()
        busy_s += ended - started
        waits_until += ended - asked


def _await(channel: Channel, limit_s: float) -> Message:
    try:
        return channel.receive(max(0.0, limit_s))
    except TimeoutError:
        raise Late from None


def kernelbench_from(raw: Mapping[str, Any]) -> KernelBenchVerdict:
    """The child's fields, checked for their types only."""
    correct = raw.get("correctness") is True
    runtime: Any = raw.get("runtime")
    stats, reference = (_figures(raw.get(key)) for key in ("runtime_stats", "ref_runtime_stats"))
    mean: Any = reference.get("mean", 0.0)
    metadata = _plain(raw.get("metadata"))
    timed = type(runtime) in (int, float) and math.isfinite(runtime) and runtime > 0
    measured = correct and timed and mean > 0
    if measured and mean / float(runtime) > EXCESSIVE_SPEEDUP:
        metadata["excessive_speedup"] = True
    return KernelBenchVerdict(
        compiled=raw.get("compiled") is True,
        correctness=correct,
        metadata=metadata,
        runtime=float(runtime) if measured else -1.0,
        runtime_stats=stats if measured else {},
        ref_runtime=float(mean) if measured else -1.0,
        ref_runtime_stats=reference if measured else {},
    )


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
