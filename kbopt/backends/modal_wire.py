"""Messages between the driver and its Modal container. Both sides import this; it needs no Modal.

Messages are plain values in CBOR. Requests and results are compressed JSON, split into pages below Modal's
inline limit for spawned calls. Modal sends larger payloads by blob storage, which a container without network
may not reach.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kbopt.core import codec
from kbopt.core.ports import Phase

T = TypeVar("T")
Message = dict[str, Any]

PAGE_BYTES = 7 * 1024
"""Bytes of a page. Modal sends up to 8 KiB inline with a spawned call; the rest is for the envelope."""

MAX_UNPACKED_BYTES = 64 * 2**20
"""Bytes of an unpacked batch at most, so that a hostile container cannot fill the driver's memory."""


class WireError(ValueError):
    """Pages that do not unpack to a value of the expected type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerInfo:
    """The head of every answer.

    `starter` is the owner of the first call, for which the container was started. `age_s` are the seconds
    since the container began to start the service, and `idle_s` those since the last batch ended. `isolation`
    says how candidates are isolated. `failure` says why the container could not answer, and `user_error` what
    the user has to change; both are "" if all is well. `phases` counts the requests in each phase, of all
    drivers.
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
    phases: Mapping[Phase, int] = field(default_factory=dict)


def pack(value: object) -> list[bytes]:
    """Return `value` as compressed JSON, in at least one page of at most `PAGE_BYTES` bytes."""
    data = zlib.compress(codec.dumps(value).encode(), level=9)
    return [data[start : start + PAGE_BYTES] for start in range(0, len(data), PAGE_BYTES)]


def unpack(kind: type[T], pages: Sequence[bytes]) -> T:
    """Return the value of type `kind` that `pack` split. Raises WireError, also if it is too large."""
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(b"".join(pages), MAX_UNPACKED_BYTES)
        if not stream.eof:
            raise WireError(f"{len(pages)} pages are cut short or unpack to over {MAX_UNPACKED_BYTES} bytes")
        return codec.loads(kind, text)
    except (zlib.error, TypeError, codec.CodecError) as error:
        raise WireError(f"{len(pages)} pages that are no {kind}: {error}"[:500]) from None
