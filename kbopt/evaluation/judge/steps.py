"""Compares outputs that count in steps: integers, booleans and floats of 8 bits.

Neighbouring values of such types lie further apart than any tolerance, so elements have to be equal. Near a
tie, rounding decides which of two values an element has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from kbopt.evaluation.judge.slack import OWN_ERROR_FACTOR

_PASSING_SHARE = 1e-3
"""Share of the elements that may differ in an output that counts in steps, if near ties explain them. An
honest kernel's rounding decides about one in a hundred thousand otherwise, half precision one in twenty."""
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
"""Signed types of the same sizes as unsigned ones on which torch has few operations."""


def counts_in_steps(tensor: torch.Tensor) -> bool:
    """Return whether neighbouring values of the tensor's type lie further apart than any tolerance."""
    return not (tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype.itemsize > 1))


def differs(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return a mask of the elements that differ, for types that count in steps. Two NaNs do not differ."""
    if one.is_floating_point():
        left, right = one.float(), other.float()
        return (left != right) & ~(left.isnan() & right.isnan())
    as_signed = _SIGNED.get(one.dtype, one.dtype)
    return one.view(as_signed) != other.view(as_signed)


def picked(tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the elements for which the mask is set. torch cannot index unsigned integers on a GPU."""
    return tensor.view(_SIGNED.get(tensor.dtype, tensor.dtype))[mask].view(tensor.dtype)


def first_wrong_step(
    got: torch.Tensor,
    want: torch.Tensor,
    own: torch.Tensor,
    known_share: float,
    others: Iterable[torch.Tensor],
) -> tuple[tuple[int, ...], int] | None:
    """Return the index of the first wrong element and the number of wrong ones, or None if there is none.

    A wrong element is neither the float64 answer nor the reference's own, and not decided by rounding either.
    """
    wrong = differs(got, want) & differs(got, own)
    num_wrong = int(wrong.sum())
    own_share = max(known_share, share(differs(own, want)))
    if num_wrong <= max(1.0, max(_PASSING_SHARE, OWN_ERROR_FACTOR * own_share) * got.numel()):
        for other in others:
            wrong &= differs(got, other)
            num_wrong = int(wrong.sum())
            if not num_wrong:
                break
    if not num_wrong:
        return None
    return unravel(int(wrong.flatten().int().argmax()), wrong.shape), num_wrong


def share(mask: torch.Tensor) -> float:
    """Return the share of the elements for which the mask is set."""
    return int(mask.sum()) / max(1, mask.numel())


def unravel(flat: int, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the index of an element by NumPy: torch.unravel_index imports sympy, which takes two seconds."""
    return tuple(map(int, np.unravel_index(flat, shape)))
