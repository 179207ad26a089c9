"""Arguments and outputs of a model as a JSON skeleton and raw buffers, which can cross processes.

`flatten` splits a nested value into a skeleton and its tensors, and `unflatten` joins them again. A skeleton
is plain JSON, so it can be compared, sent, and received from an untrusted process.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

Skeleton = Any
ALIGNMENT_BYTES = 256
"""Alignment of tensors in the input buffer."""
_MOST_ELEMENTS = 2**48
_MOST_DIMENSIONS = 64
_MOST_INTERLEAVED = 2**20
"""Elements of a tensor with interleaved dimensions at most: each element's place is compared."""
_MOST_GAP_BYTES = 64 * 2**20
"""Bytes of memory with gaps that are read at once."""

_DTYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
        *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
        *(torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
        *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    )
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class LayoutError(ValueError):
    """A value that cannot cross processes.

    Strided tensors of the dtypes in `_DTYPES`, numbers, strings, None, dtypes, lists, tuples and dicts can.
    """


class TensorSpec(NamedTuple):
    """How a tensor lies in its buffer. `stride` counts elements, as in torch."""

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def of(cls, tensor: torch.Tensor) -> TensorSpec:
        return cls(dtype=dtype_name(tensor.dtype), shape=tuple(tensor.shape), stride=tuple(tensor.stride()))

    def require_possible(self) -> None:
        """Raise LayoutError for a spec from an untrusted process that no tensor has."""
        are_small = all(0 <= n < _MOST_ELEMENTS for n in (*self.shape, *self.stride))
        is_one = self.dtype in _DTYPES and len(self.shape) == len(self.stride) <= _MOST_DIMENSIONS
        if not (are_small and is_one):
            looks = f"{self.dtype} {self.shape} {self.stride}"
            raise LayoutError(f"no tensor looks like {looks}"[:200])

    @property
    def torch_dtype(self) -> torch.dtype:
        return _DTYPES[self.dtype]

    @property
    def num_bytes(self) -> int:
        """Bytes of the elements, without gaps."""
        return math.prod(self.shape) * self.torch_dtype.itemsize

    @property
    def alignment_bytes(self) -> int:
        """The address is a multiple of this: the size of an element, or of a complex element's part."""
        return self.torch_dtype.itemsize // (2 if self.torch_dtype.is_complex else 1)

    @property
    def size_bytes(self) -> int:
        """Bytes from the start of the first element to the end of the last one, gaps included."""
        return self.num_spanned * self.torch_dtype.itemsize

    @property
    def num_spanned(self) -> int:
        """Elements for which there is room from the first one to the last one, gaps included."""
        if 0 in self.shape:
            return 0
        return sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True)) + 1


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return _NAMES.get(dtype) or str(dtype).removeprefix("torch.")


def flatten(value: Any) -> tuple[Skeleton, list[torch.Tensor]]:
    """Return the skeleton of `value`, and its tensors in the skeleton's order. Raises LayoutError."""
    tensors: list[torch.Tensor] = []
    return _take_apart(value, tensors), tensors


def _take_apart(value: Any, tensors: list[torch.Tensor]) -> Skeleton:
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        _require_plain(value)
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    if isinstance(value, tuple):  # Named tuples too, such as torch.max returns.
        # A subclass could compute its items in an iterator of its own, after the timed call.
        return {"tuple": [_take_apart(item, tensors) for item in tuple.__iter__(value)]}
    if type(value) is list:
        return {"list": [_take_apart(item, tensors) for item in value]}
    if type(value) in (dict, OrderedDict) and all(type(key) is str for key in value):
        return {"dict": {key: _take_apart(item, tensors) for key, item in value.items()}}
    if value is None or type(value) in (bool, int, float, str):
        return {"value": value}
    if isinstance(value, torch.dtype):
        return {"dtype": dtype_name(value)}
    raise LayoutError(f"{type(value).__module__}.{type(value).__qualname__}")


def _require_plain(tensor: torch.Tensor) -> None:
    if tensor.layout is not torch.strided or tensor.is_nested:
        raise LayoutError(f"tensor of layout {str(tensor.layout).removeprefix('torch.')}")
    if tensor.dtype not in _NAMES:
        raise LayoutError(f"tensor of dtype {dtype_name(tensor.dtype)}")


def unflatten(skeleton: Skeleton, tensors: Sequence[torch.Tensor]) -> Any:
    """Return the value that `flatten` split, with `tensors` in place of the old ones."""
    ((kind, content),) = skeleton.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "list":
        return [unflatten(item, tensors) for item in content]
    if kind == "tuple":
        return tuple(unflatten(item, tensors) for item in content)
    if kind == "dict":
        return {key: unflatten(item, tensors) for key, item in content.items()}
    return _DTYPES[content] if kind == "dtype" else content


def same_structure(one: Skeleton, other: Skeleton) -> bool:
    """Return whether two skeletons are equal except for plain values."""
    ((kind, content),), ((other_kind, other_content),) = one.items(), other.items()
    if kind != other_kind:
        return False
    if kind in ("list", "tuple"):
        return len(content) == len(other_content) and all(map(same_structure, content, other_content))
    if kind == "dict":
        return list(content) == list(other_content) and all(
            map(same_structure, content.values(), other_content.values())
        )
    return kind != "tensor" or bool(content == other_content)


def has_form(seen: Any, wanted: Skeleton) -> bool:
    """Return whether `seen`, which may be anything, is the skeleton `wanted`.

    A list counts as a tuple: a function in C++ that returns several tensors returns them as a list.
    """
    ((kind, content),) = wanted.items()
    if kind not in ("list", "tuple", "dict"):
        return bool(seen == wanted)
    if not isinstance(seen, dict) or len(seen) != 1:
        return False
    ((seen_kind, items),) = seen.items()
    if kind == "dict":
        return (
            seen_kind == "dict"
            and isinstance(items, dict)
            and items.keys() == content.keys()
            and all(has_form(items[key], content[key]) for key in content)
        )
    return (
        seen_kind in ("list", "tuple")
        and isinstance(items, list | tuple)
        and len(items) == len(content)
        and all(map(has_form, items, content))
    )


def is_dense(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Return whether the elements have neither gaps nor overlaps, in any order of dimensions."""
    expected = 1
    for step, size in sorted(zip(stride, shape, strict=True)):
        if size == 1:
            continue
        if step != expected:
            return 0 in shape
        expected *= size
    return True


def is_separate(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Return whether no two elements share memory. Gaps are allowed."""
    if 0 in shape:
        return True
    steps = sorted((step, size) for step, size in zip(stride, shape, strict=True) if size > 1)
    reach = 0
    for step, size in steps:
        if step <= reach:
            return _lie_apart(steps)
        reach += (size - 1) * step
    return True


def _lie_apart(steps: Sequence[tuple[int, int]]) -> bool:
    """Return the same for interleaved dimensions, by comparing the places of all elements.

    Return False for more than `_MOST_INTERLEAVED` elements.
    """
    if steps[0][0] == 0 or math.prod(size for _, size in steps) > _MOST_INTERLEAVED:
        return False
    places = torch.zeros((), dtype=torch.int64)
    for step, size in steps:
        places = places.unsqueeze(-1) + step * torch.arange(size)
    return places.unique().numel() == places.numel()


def bytes_at(spec: TensorSpec, shares: torch.Tensor) -> torch.Tensor:
    """Return the offset of the byte at each of `shares` (0 to below 1) of the elements' bytes.

    Gaps are skipped. The result has the shape of `shares`.
    """
    if is_dense(spec.shape, spec.stride):
        return (shares * spec.size_bytes).long()
    item_bytes = spec.torch_dtype.itemsize
    byte = (shares * spec.num_bytes).long()
    element, places = byte // item_bytes, torch.zeros_like(byte)
    for size, step in zip(reversed(spec.shape), reversed(spec.stride), strict=True):
        places += step * (element % size)
        element = element // size
    return places * item_bytes + byte % item_bytes


def copy_elements(spec: TensorSpec, read: Callable[[int, torch.Tensor], None]) -> torch.Tensor:
    """Copy a tensor out of memory that `read(start, buffer)` copies from, by bytes.

    Memory with wide gaps is read in parts, so that no buffer holds all of the gaps.
    """
    if spec.num_bytes == 0:
        return torch.empty(spec.shape, dtype=spec.torch_dtype)
    if spec.size_bytes <= max(_MOST_GAP_BYTES, 2 * spec.num_bytes):
        buffer = torch.empty(spec.size_bytes, dtype=torch.uint8)
        read(0, buffer)
        return view(buffer, spec, 0)
    widest = max(
        (axis for axis, size in enumerate(spec.shape) if size > 1), key=lambda axis: spec.stride[axis]
    )
    step_bytes = spec.stride[widest] * spec.torch_dtype.itemsize
    at_once = max(1, min(spec.shape[widest] - 1, _MOST_GAP_BYTES // step_bytes))
    copy = torch.empty(spec.shape, dtype=spec.torch_dtype)
    for start in range(0, spec.shape[widest], at_once):
        some = copy.narrow(widest, start, min(at_once, spec.shape[widest] - start))
        part = TensorSpec(dtype=spec.dtype, shape=tuple(some.shape), stride=spec.stride)
        some.copy_(copy_elements(part, partial(_read_from, read, start * step_bytes)))
    return copy


def _read_from(read: Callable[[int, torch.Tensor], None], base: int, at: int, buffer: torch.Tensor) -> None:
    read(base + at, buffer)


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """Return `tensor` if it has neither gaps nor overlaps, else a contiguous copy."""
    return tensor if is_dense(tensor.shape, tensor.stride()) else tensor.contiguous()


def aligned(size_bytes: int) -> int:
    """Round `size_bytes` up to `ALIGNMENT_BYTES`."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def view(buffer: torch.Tensor, spec: TensorSpec, offset_bytes: int) -> torch.Tensor:
    """Return the tensor at `offset_bytes` of `buffer` (uint8, one dimension). It shares its memory."""
    if spec.size_bytes == 0:
        return torch.empty(spec.shape, dtype=spec.torch_dtype, device=buffer.device)
    flat = buffer[offset_bytes : offset_bytes + spec.size_bytes].view(spec.torch_dtype)
    return flat.as_strided(spec.shape, spec.stride)
