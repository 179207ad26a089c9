"""Decodes the answers of untrusted profile processes into bounded values.

Every function raises CandidateForged for a message that an honest process would not send.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from kbopt.core.profile import Code, Counted, Counters, KernelCode, Launch, Missing, Part, Share, Trace
from kbopt.evaluation.profile.listing import MOST_KERNELS, MOST_KINDS
from kbopt.evaluation.profile.ncu_report import MOST_LAUNCHES
from kbopt.evaluation.profile.trace_events import MOST_PARTS
from kbopt.evaluation.transport.channel import Message
from kbopt.evaluation.transport.untrusted import (
    MAX_NAME,
    CandidateForged,
    finite,
    integer_of,
    list_of,
    one_line,
    text_of,
)

T = TypeVar("T")
REPLY_LIMIT_BYTES = 256 * 2**10
"""Bytes of a reply at most."""
_MOST_CODE = 8 * MOST_KERNELS
"""Kernels of a build at most: an honest process sends `MOST_KERNELS` for each library."""
_MOST = 2**62
"""Integers lie below, so that sums of two fit into 64 bits."""
_MAX_REASON = 400
"""Characters of a reason at most."""


def code_of(raw: Any) -> Code | Missing:
    """Return the kernels of a build, or the reason why they could not be read."""
    return _tier(raw, lambda fields: Code(kernels=_rows(fields, "kernels", _kernel, _MOST_CODE)))


def trace_of(raw: Any) -> Trace:
    """Return a trace with rates of zero. `Profiling` computes them from the task's bytes and operations."""
    fields = _object(raw)
    return Trace(
        call_us=_number(fields, "call_us"),
        busy_us=_number(fields, "busy_us"),
        num_parts=_integer(fields, "num_parts"),
        parts=_rows(fields, "parts", _part, MOST_PARTS),
        gbps=0.0,
        tflops=0.0,
    )


def counters_of(raw: Any) -> Counters | Missing:
    """Return the launches of a call with their hardware counters, or the reason why there are none."""
    return _tier(raw, lambda fields: Counters(kernels=_rows(fields, "kernels", _counted, MOST_LAUNCHES)))


def _tier(raw: Any, read: Callable[[Message], T]) -> T | Missing:
    fields = _object(raw)
    if "reason" in fields:
        return Missing(reason=_text(fields, "reason", _MAX_REASON))
    return read(fields)


def _kernel(fields: Message) -> KernelCode:
    return KernelCode(
        name=_text(fields, "name"),
        target=_text(fields, "target"),
        instructions=_integer(fields, "instructions"),
        vector_bits=_integer(fields, "vector_bits"),
        mix=_rows(fields, "mix", _share, MOST_KINDS),
        registers=_optional(fields, "registers"),
        shared_bytes=_optional(fields, "shared_bytes"),
        local_bytes=_optional(fields, "local_bytes"),
    )


def _share(fields: Message) -> Share:
    return Share(kind=_text(fields, "kind"), share=min(1.0, _number(fields, "share")))


def _part(fields: Message) -> Part:
    launch = fields.get("launch")
    return Part(
        name=_text(fields, "name"),
        calls=_integer(fields, "calls"),
        us=_number(fields, "us"),
        share=min(1.0, _number(fields, "share")),
        launch=None if launch is None else _launch(_object(launch)),
    )


def _launch(fields: Message) -> Launch:
    return Launch(
        grid=_three(fields, "grid"),
        block=_three(fields, "block"),
        registers=_integer(fields, "registers"),
        shared_bytes=_integer(fields, "shared_bytes"),
    )


def _counted(fields: Message) -> Counted:
    return Counted(
        name=_text(fields, "name"),
        us=_number(fields, "us"),
        compute_pct=_number(fields, "compute_pct"),
        dram_pct=_number(fields, "dram_pct"),
        l2_pct=_number(fields, "l2_pct"),
        occupancy_pct=_number(fields, "occupancy_pct"),
        l2_hit_pct=_number(fields, "l2_hit_pct"),
        dram_bytes=_integer(fields, "dram_bytes"),
        stall=_text(fields, "stall"),
        stall_cycles=_number(fields, "stall_cycles"),
    )


def _object(raw: Any) -> Message:
    if type(raw) is not dict:
        raise CandidateForged("a profile that is none")
    fields: Message = raw
    return fields


def _rows(fields: Message, name: str, read: Callable[[Message], T], most: int) -> tuple[T, ...]:
    return tuple(read(_object(row)) for row in list_of(fields.get(name), name, most=most))


def _text(fields: Message, name: str, most: int = MAX_NAME) -> str:
    return one_line(text_of(fields.get(name), name, most), most)


def _integer(fields: Message, name: str) -> int:
    return integer_of(fields.get(name), name, below=_MOST)


def _optional(fields: Message, name: str) -> int | None:
    return None if fields.get(name) is None else _integer(fields, name)


def _number(fields: Message, name: str) -> float:
    number = finite(fields.get(name))
    if number is None or number < 0:
        raise CandidateForged(f"{name} that is no number from zero up")
    return number


def _three(fields: Message, name: str) -> tuple[int, int, int]:
    x, y, z = (integer_of(size, name, below=_MOST) for size in _exactly(fields.get(name), name, 3))
    return x, y, z


def _exactly(raw: Any, name: str, num: int) -> list[Any]:
    values = list_of(raw, name, most=num)
    if len(values) != num:
        raise CandidateForged(f"{name} of another number than {num}")
    return values
