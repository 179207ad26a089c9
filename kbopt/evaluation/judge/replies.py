"""Decoders of a worker's replies. The judge gets values from a worker's messages only by these.

For any JSON they return values that an honest worker could send, or raise CandidateForged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kbopt.evaluation.transport.channel import Message
from kbopt.evaluation.transport.layout import LayoutError, Skeleton, TensorSpec
from kbopt.evaluation.transport.untrusted import (
    MAX_NAME,
    CandidateForged,
    finite,
    integer_of,
    list_of,
    one_line,
    text_of,
)

_MOST_ADDRESS = 2**63
"""Addresses and offsets lie below: they fit into a signed integer of 64 bits."""
_MOST_BYTES = 2**47
"""Bytes of a process's address space on x86-64 and on most of 64-bit ARM."""
_MOST_NS = 2**62
"""Nanoseconds, and numbers of calls, lie below: sums of two still fit into 64 bits."""
_MOST_TENSORS = 10_000
"""Tensors in the output of one call at most."""
_MOST_NAMES = 50
"""Names in each list of an audit at most: `worker.audit` sends no more."""
_MOST_KERNELS = 20
"""Kernels of a profile at most: `worker.worker_process` sends no more."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What an audit saw of a call: see `worker.audit.Audited`."""

    torch_ops: tuple[str, ...]
    custom_kernel: bool
    arithmetic: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTime:
    """One kernel of a call on a GPU: the number of its launches and their time in all, in microseconds."""

    name: str
    calls: int
    us: float


def base_of(reply: Message) -> int:
    """Decode the address of the input buffer in the worker."""
    return integer_of(reply.get("base"), "an address", below=_MOST_ADDRESS)


def times_of(reply: Message, num_calls: int) -> list[int]:
    """Decode the nanoseconds of each call."""
    times = list_of(reply.get("ns"), "times", most=num_calls)
    if len(times) != num_calls:
        raise CandidateForged("times of another number of calls")
    return [integer_of(ns, "a time", below=_MOST_NS) for ns in times]


def queued_ns_of(reply: Message) -> int:
    """Decode the nanoseconds for which a GPU's worker queued a block of calls."""
    return integer_of(reply.get("queued_ns"), "a time", below=_MOST_NS)


def answers_of(reply: Message, num_calls: int) -> list[Answer]:
    """Decode the output of each call."""
    answers = list_of(reply.get("outputs"), "outputs", most=num_calls)
    if len(answers) != num_calls:
        raise CandidateForged("outputs of another number of calls")
    return [_answer(raw) for raw in answers]


def _answer(raw: Any) -> Answer:
    if type(raw) is not dict:
        raise CandidateForged("an output that is none")
    if "unusable" in raw:
        return Answer(unusable=one_line(text_of(raw["unusable"], "an output's type", MAX_NAME)) or "nothing")
    tensors = list_of(raw.get("tensors"), "tensors", most=_MOST_TENSORS)
    return Answer(skeleton=raw.get("skeleton"), places=tuple(_place(tensor) for tensor in tensors))


def _place(raw: Any) -> Place:
    fields = list_of(raw, "places", most=5)
    if len(fields) != 5:
        raise CandidateForged("an output at no place")
    address, raw_spec, device, segment, offset = fields
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


def seen_of(reply: Message) -> Seen:
    """Decode an audit."""
    raw = reply.get("audit")
    if type(raw) is not dict or type(raw.get("custom_kernel")) is not bool:
        raise CandidateForged("an audit that is none")
    names = list_of(raw.get("torch_ops"), "names of operations", most=_MOST_NAMES)
    return Seen(
        torch_ops=tuple(one_line(text_of(name, "an operation's name", MAX_NAME)) for name in names),
        custom_kernel=raw["custom_kernel"],
        arithmetic=tuple(
            one_line(text_of(line, "an arithmetic", MAX_NAME))
            for line in list_of(raw.get("arithmetic"), "arithmetics", most=_MOST_NAMES)
        ),
    )


def kernels_of(reply: Message) -> list[KernelTime]:
    """Decode a list of kernels, in the worker's order."""
    return [_kernel(row) for row in list_of(reply.get("kernels"), "kernels", most=_MOST_KERNELS)]


def _kernel(raw: Any) -> KernelTime:
    fields = list_of(raw, "a kernel's figures", most=3)
    us = finite(fields[2]) if len(fields) == 3 else None
    if us is None or us < 0.0:
        raise CandidateForged("a kernel's time that is none")
    return KernelTime(
        name=one_line(text_of(fields[0], "a kernel's name", MAX_NAME)),
        calls=integer_of(fields[1], "a number of calls", below=_MOST_NS),
        us=us,
    )
