"""The supervisor's side of KernelBench's protocol: it talks to the child and makes verdicts. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from kbopt.core import codec
from kbopt.core.evaluations import KernelBenchVerdict
from kbopt.core.outcomes import CompileFailed, Crashed, Outcome, TimedOut
from kbopt.evaluation.messages import KernelBench
from kbopt.evaluation.transport.channel import Channel, Message
from kbopt.evaluation.transport.untrusted import MAX_TEXT, clean, finite, one_line

EXCESSIVE_SPEEDUP = 10.0
"""A larger speedup sets KernelBench's flag `excessive_speedup`, with KernelBench's own threshold."""
REPLY_LIMIT_BYTES = 2**20
_MOST_FIELDS = 20


class Late(Exception):
    """The child did not answer in time."""


def converse(
    channel: Channel,
    job: KernelBench,
    turn: Callable[[], AbstractContextManager[None]],
    *,
    held_s: float,
    waited_s: float,
) -> tuple[Mapping[str, Any], float]:
    """Have a child judge by KernelBench's protocol. Return its fields and the seconds that it had the device.

    The child asks for the device and gets it within `turn`, for `held_s` seconds in all. Its other work, such
    as loading the candidate, may take `waited_s` seconds. Raises Late, ChannelClosed and WireError.
    """
    busy_s, waits_until = 0.0, time.monotonic() + waited_s
    channel.send(codec.encode(job))
    while True:
        message = _await(channel, waits_until - time.monotonic())
        if "device" not in message:
            fields = message.get("fields")
            return (fields if isinstance(fields, dict) else {}), busy_s
        asked = time.monotonic()
        with turn():
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
    """Return a verdict from a child's fields. They are not trusted: fields of a wrong type are left out."""
    correct, runtime = raw.get("correctness") is True, finite(raw.get("runtime")) or 0.0
    stats, reference = (_figures(raw.get(key)) for key in ("runtime_stats", "ref_runtime_stats"))
    mean = finite(reference.get("mean")) or 0.0
    metadata = _plain(raw.get("metadata"))
    measured = correct and runtime > 0 and mean > 0
    if measured and mean > EXCESSIVE_SPEEDUP * runtime:
        metadata["excessive_speedup"] = True
    return KernelBenchVerdict(
        compiled=raw.get("compiled") is True,
        correctness=correct,
        metadata=metadata,
        runtime=runtime if measured else -1.0,
        runtime_stats=stats if measured else {},
        ref_runtime=mean if measured else -1.0,
        ref_runtime_stats=reference if measured else {},
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
        runtime=-1.0,
        runtime_stats={},
        ref_runtime=-1.0,
        ref_runtime_stats={},
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
