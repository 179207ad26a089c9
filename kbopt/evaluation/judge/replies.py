"""Decoders of a worker's replies. The judge gets values from a worker's messages only by these.

For any JSON they return values that an honest worker could send, or raise CandidateForged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kbopt.evaluation.messages import KernelTime, Seen
from kbopt.evaluation.transport.channel import Message
from kbopt.evaluation.transport.layout import LayoutError, Skeleton, TensorSpec
from kbopt.evaluation.transport.untrusted import (
    MAX_NAME,
    CandidateForged,
    integer_of,
    list_of,
    one_line,
    text_of,
    value_of,
)

_MOST_ADDRESS = 2**63
"""Addresses and offsets lie below: they fit into a signed integer of 64 bits."""
_MOST_BYTES = 2**47
"""Bytes of a process's address space on x86-64 and on most of 64-bit ARM."""
_MOST_NS = 2**62
"""Nanoseconds lie below: sums of two still fit into 64 bits."""
_MOST_ALLOCATIONS = 2**31
"""Allocations lie below that failed in one process."""
_MOST_TENSORS = 10_000
"""Tensors in the output of one call at most."""
_HANDLE_CHARACTERS = 400
"""Characters of a segment's name at most. CUDA's handle takes 128, and a number follows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The place of a tensor, as the worker reports it. On a GPU it has a segment and the offset in it."""

    address: int
    spec: TensorSpec
    device: str
    segment: str = ""
    offset: int = 0

    @property
    def span(self) -> range:
        """The addresses of its bytes, from the first element to the last."""
        return range(self.address, self.address + self.spec.size_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The output of one call: a skeleton with tensors, or the name of an `unusable` type."""

    skeleton: Skeleton = None
    places: tuple[Place, ...] = ()
    unusable: str = ""


def base_of(reply: Message) -> int:
    """Decode the address of the input buffer in the worker."""
    return integer_of(reply.get("base"), "an address", below=_MOST_ADDRESS)


def times_of(reply: Message, num_calls: int) -> list[int]:
    """Decode the nanoseconds of each call."""
    times = list_of(reply.get("ns"), "times", fewest=num_calls, most=num_calls)
    return [integer_of(ns, "a time", below=_MOST_NS) for ns in times]


def queued_ns_of(reply: Message) -> int:
    """Decode the nanoseconds for which a GPU's worker queued a block of calls."""
    return integer_of(reply.get("queued_ns"), "a time", below=_MOST_NS)


def answers_of(reply: Message, num_calls: int) -> list[Answer]:
    """Decode the output of each call."""
    answers = list_of(reply.get("outputs"), "outputs", fewest=num_calls, most=num_calls)
    return [_answer(raw) for raw in answers]


def _answer(raw: Any) -> Answer:
    if type(raw) is not dict:
        raise CandidateForged("an output that is none")
    if "unusable" in raw:
        return Answer(unusable=one_line(text_of(raw["unusable"], "an output's type", MAX_NAME)) or "nothing")
    tensors = list_of(raw.get("tensors"), "tensors", most=_MOST_TENSORS)
    return Answer(skeleton=raw.get("skeleton"), places=tuple(_place(tensor) for tensor in tensors))


def _place(raw: Any) -> Place:
    address, raw_spec, device, segment, offset = list_of(raw, "places", fewest=5, most=5)
    try:
        spec = TensorSpec.from_json(raw_spec)
    except LayoutError as error:
        raise CandidateForged(str(error)) from None
    place = Place(
        address=integer_of(address, "an address", below=_MOST_ADDRESS),
        spec=spec,
        device=one_line(text_of(device, "a device", MAX_NAME)),
        segment=text_of(segment, "a segment", _HANDLE_CHARACTERS),
        offset=integer_of(offset, "an offset", below=_MOST_ADDRESS),
    )
    if spec.num_bytes > _MOST_BYTES or spec.size_bytes > _MOST_BYTES or place.span.stop > _MOST_ADDRESS:
        raise CandidateForged(f"an output of {spec.size_bytes} bytes, more than a process has")
    if spec.num_bytes and address % spec.alignment_bytes:
        raise CandidateForged(f"{spec.dtype} at address {address:#x}, between two places for it")
    return place


def failed_allocations_of(reply: Message) -> int:
    """Decode how often torch's allocator found no room."""
    return integer_of(reply.get("failed_allocations"), "a number of allocations", below=_MOST_ALLOCATIONS)


def seen_of(reply: Message) -> Seen:
    """Decode an audit."""
    seen: Seen = value_of(Seen, reply.get("audit"), "an audit")
    return seen


def kernels_of(reply: Message) -> tuple[KernelTime, ...]:
    """Decode the kernels of a call, in the worker's order."""
    kernels: tuple[KernelTime, ...] = value_of(
        tuple[KernelTime, ...], reply.get("kernels"), "a list of kernels"
    )
    return kernels
