"""Finds answers that have what rows and columns of the exact one have in common, and guess the rest.

The product of two matrices of positive numbers is nearly that of their sums. In half precision the tolerance
has room for the difference. So the judge looks at the *rest*: what is left of the exact answer without the
means of its rows and columns. It looks on the task's own inputs, which no kernel can tell from those that are
timed. Rounding takes nothing of the rest away, and adds little to it. Sums of the inputs have nothing of it,
and a part of the terms errs by as much as it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from kbopt.core.protocol import Precision
from kbopt.evaluation.judge.steps import counts_in_steps
from kbopt.evaluation.judge.tolerance import wide
from kbopt.evaluation.passes import NameOf

_FEWEST = 4096
"""Elements of an output at least: fewer say little beside their rounding."""
_FEWEST_COLUMNS = 8
"""Columns and rows at least. An output with fewer is cut into rows of another length."""
_MOST = 512
"""Rows and columns that are looked at, drawn at random."""
_KEPT = 0.8
"""Share of the rest that an answer keeps at least. Truncated operands keep more than 0.99, and integers of 8
bits too."""
_RESOLVED = 0.5
"""The reference's error, as a share of the rest, up to which the output shows it."""
_BLURRED, _BLUR_FACTOR = 0.6, 2.0
"""An answer's error may be this share of the rest, or so many times the reference's error. Half of the terms,
doubled, err by all of the rest, and three quarters by 0.58 of it. A product whose four parts are rounded errs
by 1.4 times what the reference does."""
_STANDARD_ERRORS = 6.0
"""Standard errors of the share that is kept: one in a billion differs by more."""


def describe_stand_in(
    precision: Precision,
    got: Sequence[torch.Tensor],
    exact: Sequence[torch.Tensor],
    own: Sequence[torch.Tensor],
    name_of: NameOf,
) -> str:
    """Return what one of the outputs lacks, or "" for an answer that lacks nothing.

    In fp32 the tolerance has no room for such answers, and nothing is looked for.
    """
    if precision == "fp32":
        return ""
    for number, three in enumerate(zip(got, exact, own, strict=True)):
        if counts_in_steps(three[2]) or three[2].is_complex() or three[2].numel() < _FEWEST:
            continue
        lack = _lack_of(*_blocks(*three))
        if lack:
            return f"{name_of(number)} {lack}"
    return ""


def _blocks(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """Return the same random rows and columns of each tensor, in double precision.

    Only these are copied. An output of few rows or columns is taken apart and made a square.
    """
    shape, device = tensors[0].shape, tensors[0].device
    columns, number = shape[-1], tensors[0].numel()
    if _FEWEST_COLUMNS <= columns <= number // _FEWEST_COLUMNS:
        rows = _some(number // columns, _MOST, device)
        places = [*(index[:, None] for index in _unravelled(rows, shape[:-1])), _some(columns, _MOST, device)]
        return [wide(tensor[tuple(places)]) for tensor in tensors]
    side = min(_MOST, math.isqrt(number))
    places = _unravelled(_some(number, side**2, device)[: side**2], shape)
    return [wide(tensor[tuple(places)].view(side, side)) for tensor in tensors]


def _some(number: int, most: int, device: torch.device) -> torch.Tensor:
    """Return all integers below `number`, or `most` random ones."""
    if number <= most + 2 * math.isqrt(most):
        return torch.arange(number, device=device)
    return torch.randint(number, (most,), device=device)


def _unravelled(flat: torch.Tensor, shape: Sequence[int]) -> list[torch.Tensor]:
    """Return the indices of elements in a tensor of this shape, for each dimension."""
    indices = []
    for size in reversed(shape):
        indices.append(flat % size)
        flat = flat // size
    return indices[::-1]


def _lack_of(got: torch.Tensor, exact: torch.Tensor, own: torch.Tensor) -> str:
    rest = _rest(exact)
    size = _rms(rest)
    if not math.isfinite(size) or not size or not _rms(own - exact) <= _RESOLVED * size:
        return ""
    blur, own_blur = (_rms(_rest(tensor - exact)) / size for tensor in (got, own))
    kept, own_kept = (float((tensor * rest).mean()) / size**2 for tensor in (got, own))
    scatter = (blur + own_blur) / math.sqrt(rest.numel())
    if kept - min(0.0, own_kept - 1.0) < _KEPT - _STANDARD_ERRORS * scatter:
        return (
            f"keeps {100 * max(0.0, kept):.0f} % of what is not common to its rows or columns: sums of the "
            "inputs stand in for the answer"
        )
    if blur > max(_BLURRED, _BLUR_FACTOR * own_blur):
        return (
            f"errs by {blur:.2f} of what is not common to its rows or columns, and the reference by "
            f"{own_blur:.2f}: a part of the terms stands in for all"
        )
    return ""


def _rest(tensor: torch.Tensor) -> torch.Tensor:
    return tensor - tensor.mean(0) - tensor.mean(1, keepdim=True) + tensor.mean()


def _rms(tensor: torch.Tensor) -> float:
    return float(tensor.square().mean().sqrt())
