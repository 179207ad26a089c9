"""Reads one tensor of a safetensors file, without a library: a task's source carries it as text."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from kbopt.tasks.formats.model import fault

_MAX_HEADER_BYTES = 16 * 2**20
_MAX_TENSOR_BYTES = 16 * 2**20
_DTYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
"""Of the names in a file, torch's and the bytes of an element."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A tensor's bytes, little-endian and in the order of its rows; `dtype` as torch calls it."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def read(path: Path, key: str) -> Stored:
    """The tensor `key` of the file. Raises `UserError`, which names the file."""
    what = "Get the file as the benchmark stores it, with `git lfs pull` where it lies in Git LFS"
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= _MAX_HEADER_BYTES:
                raise fault(path, "no safetensors file: its header has no length", what)
            header = json.loads(file.read(length))
            if key not in header:
                raise fault(path, f"no tensor {key!r}; it has {', '.join(sorted(header))}", "Mend tensor_key")
            entry = header[key]
            begin, end = entry["data_offsets"]
            shape = tuple(int(size) for size in entry["shape"])
            dtype, item_bytes = _DTYPES[entry["dtype"]]
            if end - begin > _MAX_TENSOR_BYTES:
                raise fault(
                    f"{path}, {key}",
                    f"{(end - begin) / 2**20:.0f} MiB, and a source carries {_MAX_TENSOR_BYTES // 2**20}",
                    'Take another workload, or make the input {"type": "random"}',
                )
            file.seek(8 + length + begin)
            data = file.read(end - begin)
    except OSError as error:
        raise fault(path, f"cannot be read, {error.strerror}", what) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise fault(path, "no safetensors file: its header cannot be read", what) from None
    if len(data) != end - begin or len(data) != math.prod(shape) * item_bytes:
        raise fault(path, f"the file ends before {key!r} does", what)
    return Stored(dtype=dtype, shape=shape, data=data)
