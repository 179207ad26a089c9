"""The products in a reference: their operands, and the model's output if these are rounded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence, Set
from functools import partial
from typing import Any, Literal

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from kbopt.core.protocol import Precision
from kbopt.evaluation.judge import tolerance
from kbopt.evaluation.judge.reference import Draw, Output, Reference
from kbopt.evaluation.numerics import DTYPES, PRODUCTS
from kbopt.evaluation.operations import EachOperation
from kbopt.evaluation.transport.layout import dtype_name

Rounding = Literal["tf32", "tf32 cut off", "half"]
_MANTISSA_BITS: dict[Rounding, int] = {"tf32": 10, "tf32 cut off": 10, "half": 7}
"""Stored bits of the mantissa. `half` has those of bf16; fp16 has as many as TF32."""
_EIGHT_BITS = ("float8_e4m3fn", "float8_e5m2", "int8")
_COARSER: dict[Precision, tuple[str, ...]] = {"bf16": _EIGHT_BITS, "fp16": (*_EIGHT_BITS, "bfloat16")}
"""Types of the audit's products that are coarser than the task's."""
_LOW = (*_EIGHT_BITS, "float16", "bfloat16")
_SUMS = frozenset(("addmm", "baddbmm", "addmv", "addbmm", "addr", "_addmm_activation"))
"""Products to which the operation adds its first argument."""
_FP32_MANTISSA_BITS = 23
"""Stored bits of the mantissa in fp32."""


def plain(reference: Reference, draw: Draw) -> Output:
    """Return the reference's output for a copy of the inputs."""
    return reference.run(draw.arguments(tuple(t.clone() for t in draw.tensors)))


def rounded(reference: Reference, draw: Draw, kind: Rounding) -> Output:
    """Return the reference's output with the operands of its products rounded.

    If it has no products, its fp32 inputs are rounded instead.
    """
    change = _change(kind)
    with Products(change) as mode:
        output = plain(reference, draw)
    if mode.names:
        return output
    tensors = tuple(change(t) if t.dtype == torch.float32 else t.clone() for t in draw.tensors)
    return reference.run(draw.arguments(tensors))


def rounded_exactly(reference: Reference, draw: Draw, kind: Rounding) -> Output | None:
    """Return the reference's float64 answer with the operands of its products rounded, or None if there is no
    room for it. Nothing else is rounded.
    """
    change = _change(kind)
    try:
        with Products(lambda t: change(t.float()).double() if t.dtype == torch.float64 else t):
            return reference.run_exact(draw)
    except torch.OutOfMemoryError:
        return None


def _change(kind: Rounding) -> Callable[[torch.Tensor], torch.Tensor]:
    return partial(cut_mantissa if kind == "tf32 cut off" else round_mantissa, bits=_MANTISSA_BITS[kind])


def errors_in_tf32(reference: Reference, draw: Draw, exact: Output) -> tuple[float, ...]:
    """How far each output lies from float64 at the most if the operands of products are in TF32.

    Tensor cores cut off what TF32 does not hold; cuBLAS rounds before. The former adds up in sums that are
    far from zero.
    """
    kinds: tuple[Rounding, ...] = ("tf32", "tf32 cut off")
    of_kinds = (
        tolerance.largest_errors(rounded(reference, draw, kind).tensors, exact.tensors) for kind in kinds
    )
    return tuple(map(max, *of_kinds))


def products_of(reference: Reference, draw: Draw) -> Products:
    """Run the reference once and note its products and their operands."""
    with Products(None) as mode:
        plain(reference, draw)
    return mode


class Products(EachOperation):
    """Notes products and their operands, and applies `change` to operands unless it is None."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
        super().__init__()
        self._change = change
        self.names: set[str] = set()
        self.dtypes: set[str] = set()
        self._storages: set[int] = set()

    def operands_of(self, reference: Reference) -> frozenset[str]:
        return frozenset(
            name
            for name, tensor in reference.parameters().items()
            if tensor.untyped_storage().data_ptr() in self._storages
        )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        if name in PRODUCTS:
            self.names.add(name)
            # The first argument of such an operation is added to the product.
            args = (args[0], *self._taken(args[1:])) if name in _SUMS else self._taken(args)
        return func(*args, **(kwargs or {}))

    def _taken(self, values: Any) -> Any:
        for tensor in _tensors(values):
            self._storages.add(tensor.untyped_storage().data_ptr())
            self.dtypes.add(dtype_name(tensor.dtype))
        return values if self._change is None else tree_map_only(torch.Tensor, self._change, values)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor))


def arithmetic_of_kernel(name: str) -> list[str]:
    """Return `half: kernel NAME` or `tf32: kernel NAME` if a GPU kernel's name shows that, else nothing."""
    lower = name.lower()
    if re.search(r"tf32|tensorop_s1688", lower):
        return [f"tf32: kernel {name}"]
    if re.search(r"bf16|fp16|_f16|h16816|h884|hgemm|half|e4m3|e5m2|nvjet_[ht]", lower):
        return [f"half: kernel {name}"]
    return []


def lower_arithmetic(
    lines: Sequence[str], precision: Precision, own_dtypes: Set[str], *, may_use_tf32: bool
) -> list[str]:
    """Return those of the `lines` about arithmetic at work that say it is lower than the task's precision.

    The reference's own products are of `own_dtypes`.
    """
    lower = _LOW if precision == "fp32" else _COARSER[precision]
    if not own_dtypes.isdisjoint(lower):
        return []
    if precision != "fp32":
        return [line for line in lines if line.endswith(lower)]
    return [line for line in lines if not (may_use_tf32 and line.startswith("tf32"))]


def takes_fewer_bits(reference: Reference, draw: Draw) -> bool:
    """Return whether the task has inputs or parameters of fewer bits: their products are exact."""
    given = (*draw.tensors, *reference.parameters().values())
    bits = DTYPES[reference.precision].itemsize
    return any(t.is_floating_point() and t.dtype.itemsize < bits for t in given)


def cut_mantissa(tensor: torch.Tensor, bits: int) -> torch.Tensor:
    """Cut an fp32 tensor off after `bits` stored bits of mantissa. Other tensors are returned unchanged."""
    if tensor.dtype != torch.float32:
        return tensor
    kept = tensor.contiguous().view(torch.int32) & -(1 << (_FP32_MANTISSA_BITS - bits))
    return kept.view(torch.float32).view(tensor.shape)


def round_mantissa(tensor: torch.Tensor, bits: int) -> torch.Tensor:
    """Round an fp32 tensor to `bits` stored bits of mantissa, to nearest, ties to even.

    Other tensors are returned unchanged.
    """
    if tensor.dtype != torch.float32:
        return tensor
    drop = _FP32_MANTISSA_BITS - bits
    whole = tensor.contiguous().view(torch.int32)
    changed = (whole >> drop).bitwise_and_(1)  # 1 where the last bit that stays is odd
    changed.add_((1 << (drop - 1)) - 1).add_(whole).bitwise_and_(-(1 << drop))
    return changed.view(torch.float32).view(tensor.shape)
