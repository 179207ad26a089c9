"""Checks of a worker's replies. The judge takes values from a worker's messages only by these.

For any JSON they return values that an honest worker could send, or raise CandidateForged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kbopt.evaluation.transport.layout import LayoutError
from kbopt.evaluation.transport.untrusted import (
    MAX_TEXT,
    CandidateForged,
    bounded,
    clean,
    decoded,
    one_line,
    value_of,
)
from kbopt.evaluation.worker_messages import BatchDone, Called, CallOutput, Place

_MOST_ADDRESS = 2**63
"""Addresses and offsets lie below: they fit into a signed integer of 64 bits."""
_MOST_BYTES = 2**47
"""Bytes of a process's address space on x86-64 and on most of 64-bit ARM."""
_MOST_NS = 2**62
"""Nanoseconds lie below: sums of two still fit into 64 bits."""
_MOST_TENSORS = 10_000
"""Tensors in the output of one call at most."""
_HANDLE_CHARACTERS = 400
"""Characters of a segment's name at most. CUDA's handle takes 128, and a number follows it."""
_MOST = {"misfits": MAX_TEXT, "count": 2**31}
"""Characters of a remark, and allocations that failed in one process, at most."""


def reply_of(kind: Any, raw: Any) -> Any:
    """Return a reply of a `kind` other than those below, see `untrusted.value_of`."""
    return value_of(kind, raw, "an answer", _MOST)


def called_of(raw: Any, num_calls: int) -> Called:
    """Return the outputs of each call."""
    called: Called = decoded(Called, raw, "outputs")
    if len(called.outputs) != num_calls:
        raise CandidateForged(f"{len(called.outputs)} outputs of {num_calls} calls")
    _require_within(called.queued_ns, "a time", _MOST_NS)
    return replace(called, outputs=tuple(map(_output, called.outputs)), seen=bounded(called.seen, "an audit"))


def batch_done_of(raw: Any, num_calls: int) -> tuple[int, ...]:
    """Return the nanoseconds of each call of a batch."""
    done: BatchDone = decoded(BatchDone, raw, "times")
    return times_of(done.ns, num_calls)


def times_of(ns: Sequence[int], num_calls: int) -> tuple[int, ...]:
    """Return the nanoseconds of each call."""
    if len(ns) != num_calls:
        raise CandidateForged(f"{len(ns)} times of {num_calls} calls")
    for one in ns:
        _require_within(one, "a time", _MOST_NS)
    return tuple(ns)


def _output(output: CallOutput) -> CallOutput:
    if output.unusable:
        return CallOutput(unusable=one_line(output.unusable) or "nothing")
    if len(output.places) > _MOST_TENSORS:
        raise CandidateForged(f"an output of {len(output.places)} tensors")
    return output._replace(places=tuple(map(_place, output.places)))


def _place(raw: Place) -> Place:
    spec = raw.spec
    try:
        spec.require_possible()
    except LayoutError as error:
        raise CandidateForged(str(error)) from None
    _require_within(raw.address, "an address", _MOST_ADDRESS)
    _require_within(raw.offset, "an offset", _MOST_ADDRESS)
    if spec.num_bytes > _MOST_BYTES or spec.size_bytes > _MOST_BYTES or raw.span.stop > _MOST_ADDRESS:
        raise CandidateForged(f"an output of {spec.size_bytes} bytes, more than a process has")
    if spec.num_bytes and raw.address % spec.alignment_bytes:
        raise CandidateForged(f"{spec.dtype} at address {raw.address:#x}, between two places for it")
    return raw._replace(device=one_line(raw.device), segment=clean(raw.segment, _HANDLE_CHARACTERS))


def _require_within(number: int, what: str, below: int) -> None:
    if not 0 <= number < below:
        raise CandidateForged(f"{what} that is no number from 0 to {below - 1}")
