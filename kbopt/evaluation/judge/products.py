"""A reference's products: what they multiply, and the same model with their operands rounded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from kbopt.evaluation.judge.reference import Draw, Output, Reference
from kbopt.evaluation.numerics import PRODUCTS

Rounding = Literal["tf32", "half"]
_MANTISSA_BITS: dict[Rounding, int] = {"tf32": 10, "half": 7}
"""Bits after the leading one. fp16 has those of TF32; `half` stands for bf16, which has fewer."""
_SUMS = frozenset(("addmm", "baddbmm", "addmv", "addbmm", "addr", "_addmm_activation"))
_FP32_MANTISSA_BITS = 23


def plain(reference: Reference, draw: Draw) -> Output:
    """The reference's answer to a copy of the inputs."""
    return reference.run(draw.arguments(tuple(t.clone() for t in draw.tensors)))


def rounded(reference: Reference, draw: Draw, kind: Rounding) -> Output:
    """The reference's answer with the operands of its products rounded; of its inputs, where it has no
    products.
    """
    bits = _MANTISSA_BITS[kind]
    with Products(bits) as mode:
        output = plain(reference, draw)
    if mode.names:
        return output
    tensors = tuple(round_mantissa(t, bits) if t.dtype == torch.float32 else t.clone() for t in draw.tensors)
    return reference.run(draw.arguments(tensors))


def products_of(reference: Reference, draw: Draw) -> Products:
    """Which products the reference computes, and from what."""
    with Products(None) as mode:
        plain(reference, draw)
    return mode


class Products(TorchDispatchMode):  # type: ignore[misc]
    """Rounds the operands of products to `bits` of mantissa, unless that is None, and notes where they
    lie.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: wrapping the method so would import all of torch._dynamo, which takes two seconds."""
        return False

    def __init__(self, bits: int | None) -> None:
        super().__init__()
        self._bits = bits
        self.names: set[str] = set()
        self._storages: set[int] = set()

    def operands_of(self, reference: Reference) -> frozenset[str]:
        """The names of the parameters that products took."""
        return frozenset(
            name
            for name, tensor in reference.parameters().items()
            if tensor.untyped_storage().data_ptr() in self._storages
        )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        if name in PRODUCTS:
            self.names.add(name)
            # The first argument of a sum is added, and no operand of the product.
            args = (args[0], *self._taken(args[1:])) if name in _SUMS else self._taken(args)
        return func(*args, **(kwargs or {}))

    def _taken(self, values: Any) -> Any:
        for tensor in _tensors(values):
            self._storages.add(tensor.untyped_storage().data_ptr())
        if self._bits is None:
            return values
        return tree_map_only(torch.Tensor, lambda t: round_mantissa(t, self._bits), values)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor))


def arithmetic_of_kernel(name: str) -> list[str]:
    """What the name of a GPU kernel says of its matrix instructions, as `half:` or `tf32:` and the name."""
    lower = name.lower()
    if re.search(r"tf32|tensorop_s1688", lower):
        return [f"tf32: kernel {name}"]
    if re.search(r"bf16|fp16|_f16|h16816|h884|hgemm|half|e4m3|e5m2|nvjet_[ht]", lower):
        return [f"half: kernel {name}"]
    return []


def round_mantissa(tensor: torch.Tensor, bits: int | None) -> torch.Tensor:
    """`tensor` with `bits` after the leading one, to nearest, ties to even; what is no fp32 as it is."""
    if bits is None or tensor.dtype != torch.float32:
        return tensor
    drop = _FP32_MANTISSA_BITS - bits
    whole = tensor.contiguous().view(torch.int32)
    odd = (whole >> drop) & 1
    return ((whole + (odd + ((1 << (drop - 1)) - 1))) & -(1 << drop)).view(torch.float32).view(tensor.shape)
