"""What the driver and its Modal container say to each other. Both sides import this; it needs no Modal.

Messages are plain values that CBOR carries. Requests and results travel as compressed JSON in pages small
enough to stay inside Modal's inline limit for spawned calls: larger payloads would take the way over blob
storage, which a container without network may not reach.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from kbopt.core import codec

T = TypeVar("T")
Message = dict[str, Any]

PAGE_BYTES = 7 * 1024
"""Modal carries 8 KiB inline with a spawned call; the rest is for the envelope."""

MAX_UNPACKED_BYTES = 64 * 2**20
"""More than any honest batch, so that a hostile container cannot fill the driver's memory."""


class WireError(ValueError):
    """Pages that do not unpack to what was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerInfo:
    """The head of every answer.

    `starter` is the owner whose call was the first that this container served: the one on whose behalf
    it was started. `age_s` counts since the container began to start the service, `idle_s` since the last
    batch ended. `isolation` says how candidates are kept apart from it. `failure` says why the container
    could not answer, `user_error` why the user must change something; either is empty where all is well.
    """

    boot: str
    device: str
    starter: str
    age_s: float
    idle_s: float
    num_evaluations: int
    isolation: str = ""
    failure: str = ""
    user_error: str = ""


def pack(value: object) -> list[bytes]:
    """`value` as compressed JSON, cut into pages of at most `PAGE_BYTES`; at least one page."""
    data = zlib.compress(codec.dumps(value).encode(), level=9)
    return [data[start : start + PAGE_BYTES] for start in range(0, len(data), PAGE_BYTES)]


def unpack(kind: type[T], pages: Sequence[bytes]) -> T:
    """The `kind` that `pack` cut up. Raises `WireError`, also for what would be too large."""
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(b"".join(pages), MAX_UNPACKED_BYTES)
        if not stream.eof:
            raise WireError(f"{len(pages)} pages are cut short or unpack to over {MAX_UNPACKED_BYTES} bytes")
        return codec.loads(kind, text)
    except (zlib.error, TypeError, codec.CodecError) as error:
        raise WireError(f"{len(pages)} pages that are no {kind}: {error}"[:500]) from None
