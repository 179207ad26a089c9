"""Is an answer right, and was it computed at the task's precision? Pure functions of tensors.

Two different questions. *Right*: every element within a tolerance of the float64 answer, wide enough for
any order of summation. *Precision*: the root mean square error compared with the reference's own; half
precision or TF32 inside an fp32 task stay within the tolerance and are told apart here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kbopt.core.types import Precision

TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-2}
"""KernelBench's atol = rtol per precision; here atol is scaled down to the size of the outputs."""

_UNIT_ROUNDOFF: dict[Precision, float] = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}

_PRECISION_FACTOR: dict[Precision, float] = {"fp32": 128.0, "fp16": 16.0, "bf16": 8.0}
"""How many times the reference's own error an honest kernel may make. Rounding an fp32 input to TF32 or
fp16 costs 2^13 units of fp32, to bf16 2^16; another order of summation or a fast exponential tens."""

_PRECISION_FLOOR = 32.0
"""In units of roundoff: the error of a reference that happens to be exact is taken to be this over the
factor above, so that a last-bit difference is no downgrade."""

_MEDIAN_SAMPLE = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """The worst element of one output, and how many were wrong."""

    output: int
    index: tuple[int, ...]
    actual: float
    expected: float
    num_wrong: int
    num_elements: int

    def __str__(self) -> str:
        where = f"output {self.output} at index {list(self.index)}"
        share = f"{self.num_wrong} of {self.num_elements} elements wrong"
        return f"{where}: expected {self.expected:.8g}, got {self.actual:.8g} ({share})"


def find_mismatch(
    actual: Sequence[torch.Tensor],
    exact: Sequence[torch.Tensor],
    reference: Sequence[torch.Tensor],
    tolerance: float,
) -> Mismatch | None:
    """The worst element outside the tolerance, None where every output is right.

    `exact` is in float64, or equal to `reference`. A floating element may differ by `tolerance` times
    (its own size + the output's root mean square, at most 1) plus four times the reference's own largest
    error. Elements where the reference is not finite must not be finite either. Other dtypes are equal.
    """
    for number, (got, want, own) in enumerate(zip(actual, exact, reference, strict=True)):
        if _obviously_right(got, own, tolerance):
            continue
        wrong, distance = _wrong_elements(got, want, own, tolerance)
        num_wrong = int(wrong.sum())
        if num_wrong:
            index = _unravel(int(torch.where(wrong, distance, -1.0).argmax()), got.shape)
            return Mismatch(
                output=number,
                index=index,
                actual=float(got[index]),
                expected=float(want[index]),
                num_wrong=num_wrong,
                num_elements=got.numel(),
            )
    return None


def _unravel(flat: int, shape: Sequence[int]) -> tuple[int, ...]:
    """torch.unravel_index without its import of sympy, which takes two seconds."""
    index: list[int] = []
    for size in reversed(shape):
        flat, at = divmod(flat, size)
        index.append(at)
    return tuple(reversed(index))


def _obviously_right(got: torch.Tensor, own: torch.Tensor, tolerance: float) -> bool:
    """A cheap sufficient test for what is nearly always the case; False says nothing.

    Within half the tolerance of the reference, and the reference is within its error of the truth.
    """
    if not own.is_floating_point() or not own.numel():
        return torch.equal(got, own)
    own = own.float() if own.dtype in (torch.float16, torch.bfloat16) else own
    size = own.square().mean().sqrt()
    return bool((got - own).abs().max() <= 0.5 * tolerance * torch.clamp(size, max=1.0))


def _wrong_elements(
    got: torch.Tensor, want: torch.Tensor, own: torch.Tensor, tolerance: float
) -> tuple[torch.Tensor, torch.Tensor]:
    if not own.is_floating_point():
        wrong = got != own
        return wrong, wrong.double()
    got, want, own = got.double(), want.double(), own.double()
    comparable = torch.isfinite(own)
    distance = torch.where(comparable, (got - want).abs(), 0.0)
    own_error = torch.where(comparable, (own - want).abs(), 0.0).max() if own.numel() else 0.0
    scale = min(1.0, _rms(want[comparable]))
    allowed = tolerance * (scale + torch.where(comparable, want.abs(), 0.0)) + 4 * own_error
    # `not (<=)` so that a NaN counts as wrong; an infinity is to be met by anything not finite.
    wrong = torch.where(comparable, ~(distance <= allowed), torch.isfinite(got) & ~torch.isfinite(want))
    return wrong, torch.nan_to_num(distance, nan=math.inf)


def _rms(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt()) if values.numel() else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """Relative error against float64: `rms` over the output's root mean square, `median` by element."""

    rms: float
    median: float


def measure_error(got: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]) -> Error:
    """The worst output's error. Integer outputs and elements that are not finite do not count."""
    worst_rms = worst_median = 0.0
    for one, truth in zip(got, exact, strict=True):
        if not one.is_floating_point() or not one.numel():
            continue
        want = truth.double()
        difference = (one.double() - want).abs_()
        size = want.abs()
        if not bool(torch.isfinite(difference.sum() + size.sum())):
            usable = torch.isfinite(want) & torch.isfinite(one)
            difference, size = difference[usable], size[usable]
        rms = _rms(size)
        if rms == 0.0:
            continue
        worst_rms = max(worst_rms, _rms(difference) / rms)
        step = max(1, size.numel() // _MEDIAN_SAMPLE)
        difference, size = difference.flatten()[::step], size.flatten()[::step]
        # Elements near zero are left out: cancellation makes their relative error meaningless.
        large = size > 1e-3 * rms
        if bool(large.any()):
            worst_median = max(worst_median, float((difference[large] / size[large]).median()))
    return Error(rms=worst_rms, median=worst_median)


def is_downgrade(candidate: Error, reference: Error, precision: Precision) -> bool:
    """Whether `candidate` errs as only arithmetic of a lower precision does."""
    factor = _PRECISION_FACTOR[precision]
    floor = _PRECISION_FLOOR * _UNIT_ROUNDOFF[precision]
    return candidate.rms > max(factor * reference.rms, floor) or candidate.median > max(
        factor * reference.median, floor
    )


def sparse_probe(tensor: torch.Tensor, keep_share: float) -> torch.Tensor:
    """`tensor` with most elements zero, so that long sums have few terms.

    A long sum hides the rounding of its terms behind that of the summation: with half a million terms
    an honest serial fp32 sum errs more than a TF32 product. With a handful of terms that are not zero,
    adding the others is exact and the precision of the products stands out. Structure is kept: zeros
    stay zero, and a symmetric matrix stays symmetric.
    """
    mask = torch.rand(tensor.shape, device=tensor.device) < keep_share
    square = tensor.dim() >= 2 and tensor.shape[-1] == tensor.shape[-2]
    if square and torch.equal(tensor, tensor.mT):
        upper = torch.triu(mask)
        mask = upper | upper.mT
    return torch.where(mask, tensor, 0)
