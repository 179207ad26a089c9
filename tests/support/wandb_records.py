"""Reads a `.wandb` file with W&B's own record definitions.

The file is a log in LevelDB's format after a header of seven bytes: blocks of 32 KiB, each record in chunks
with a header of checksum (4 bytes), length (2) and kind (1): full, first, middle or last.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_BLOCK = 32 * 1024
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def records(path: Path) -> list[wandb_internal_pb2.Record]:
    """Every record of the run, in order."""
    return [wandb_internal_pb2.Record.FromString(body) for body in _bodies(path.read_bytes())]


def wait_for_the_end(path: Path, timeout_s: float = 60.0) -> None:
    """W&B's service may still write the file when `finish` has returned; the run's exit stands last."""
    deadline = time.monotonic() + timeout_s
    while not any(record.HasField("exit") for record in records(path)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no exit in {path} after {timeout_s:g} s")
        time.sleep(0.05)


def history(path: Path) -> list[dict[str, Any]]:
    """What was logged, one mapping for each step."""
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records(path)
        if record.HasField("history")
    ]


def _bodies(data: bytes) -> Iterator[bytes]:
    if not data.startswith(b":W&B"):
        raise ValueError("not a .wandb file")
    at, body = 7, b""
    while at + 7 <= len(data):
        if _BLOCK - at % _BLOCK < 7:  # too little room for a header: the block's rest is padding
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        chunk = data[at + 7 : at + 7 + length]
        if len(chunk) < length:  # not all of it is on disk
            return
        at += 7 + length
        body = chunk if kind in (_FULL, _FIRST) else body + chunk
        if kind in (_FULL, _LAST):
            yield body
