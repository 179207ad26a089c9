"""Measures the error of an answer, and tells whether it is that of a lower precision or of one factor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kbopt.core.protocol import Precision
from kbopt.evaluation.judge.steps import counts_in_steps
from kbopt.evaluation.judge.tolerance import pieces, square_sum, wide
from kbopt.evaluation.numerics import is_float8
from kbopt.evaluation.passes import NameOf, output_name

_PRECISION_FACTOR: dict[Precision, float] = {"fp32": 128.0, "fp16": 16.0, "bf16": 8.0}
"""An honest kernel's error may be this many times the reference's own (decision 38). Another order of
summation or a fast exponential multiplies the error by tens. Rounding an fp32 input to TF32 or fp16 costs
2^13 units of fp32's roundoff, and to bf16 2^16."""
_PRECISION_FLOOR = 32.0
"""Units of roundoff. An error below this is no downgrade, even if the reference happens to be exact: it may
be a difference in the last bits."""
_MEDIAN_SAMPLE = 2**16
"""The median of an output is taken of about this many of its elements."""
FEW_ROUNDOFFS = 2.0**-22
"""Relative change of an input: four units of fp32's roundoff. Kernels of every precision accumulate in
fp32."""
_CONSTANT_SHARE = 0.05
"""An error is one common factor if the elements' relative errors scatter by at most this share of it."""
_EXACT_SHARE = 1e-3
"""The same share for factors up to `_COARSEST_STEP`."""
_COARSEST_STEP = 2.0**-7
"""Relative error: truncating two numbers to bf16 takes off no more. The error of truncated sums scatters
little, too, so that up to here only a still smaller scatter counts as one factor."""
_FEWEST_ALIKE = 8
"""Elements of an output that can be off by one factor. Rounding moves fewer by nearly one by chance."""
_ALIKE_SHARE = 0.9
"""Share of the elements that are off by the one factor at least. Elements near zero scatter."""
_TAIL = 1.5
"""Standard deviation of the logarithm of heavy-tailed factors. One in three hundred would exceed 64."""
_UNIT_ROUNDOFF: dict[Precision, float] = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}
"""The largest relative error of rounding to nearest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """Relative error against float64.

    `rms` is the root mean square of the error divided by that of the output. `median` is the median of the
    elements' relative errors.
    """

    rms: float
    median: float


def measure_error(got: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]) -> Error:
    """Return the largest `rms` and the largest `median` of all outputs.

    Outputs that count in steps, and elements that are not finite, are left out.
    """
    errors = [
        _relative_error(one, truth)
        for one, truth in zip(got, exact, strict=True)
        if not counts_in_steps(one) and one.numel()
    ]
    return Error(
        rms=max((error.rms for error in errors), default=0.0),
        median=max((error.median for error in errors), default=0.0),
    )


def is_lost(own: Sequence[torch.Tensor], exact: Sequence[torch.Tensor], most: float) -> bool:
    """Return whether an answer of the reference is off by more than the share `most` of it.

    It is too where it has rounding alone: the exact answer is zero, as a gradient of equal numbers may be.
    """
    pairs = [(one, truth) for one, truth in zip(own, exact, strict=True) if not counts_in_steps(one)]
    if any(bool(one.count_nonzero()) and not bool(truth.count_nonzero()) for one, truth in pairs):
        return True
    return not measure_error(own, exact).rms <= most


def _relative_error(got: torch.Tensor, exact: torch.Tensor) -> Error:
    error_sum, size_sum = 0.0, 0.0
    step = max(1, got.numel() // _MEDIAN_SAMPLE)
    differences, sizes = [], []
    for start, (one, truth) in pieces(got, exact):
        size = wide(truth)
        difference = size - one
        errors, squares = square_sum(difference), square_sum(size)
        if not math.isfinite(errors + squares):
            usable = torch.isfinite(size) & torch.isfinite(one)
            difference, size = difference[usable], size[usable]
            errors, squares = square_sum(difference), square_sum(size)
        error_sum += errors
        size_sum += squares
        differences.append(difference.flatten()[-start % step :: step].abs())
        sizes.append(size.flatten()[-start % step :: step].abs())
    if size_sum == 0.0:
        return Error(rms=0.0, median=0.0)
    difference, size = torch.cat(differences), torch.cat(sizes)
    # Elements near zero are left out: cancellation makes their relative error meaningless.
    large = size > 1e-3 * math.sqrt(size_sum / got.numel())
    middle = float((difference[large] / size[large]).median()) if bool(large.any()) else 0.0
    return Error(rms=math.sqrt(error_sum / size_sum), median=middle)


def is_downgrade(candidate: Error, reference: Error, precision: Precision) -> bool:
    """Return whether the candidate's error is so large that only a lower precision explains it."""
    factor = _PRECISION_FACTOR[precision]
    floor = _PRECISION_FLOOR * _UNIT_ROUNDOFF[precision]
    return candidate.rms > max(factor * reference.rms, floor) or candidate.median > max(
        factor * reference.median, floor
    )


def describe_bias(
    got: Sequence[torch.Tensor],
    exact: Sequence[torch.Tensor],
    name_of: NameOf = output_name,
) -> str:
    """Return `all elements are 1.0 % too small` or the like if an output is wrong by one factor, else ""."""
    for number, (one, truth) in enumerate(zip(got, exact, strict=True)):
        if not counts_in_steps(one) and one.numel() >= _FEWEST_ALIKE:
            bias = _common_factor(one, truth) - 1.0
            if bias:
                what = "all elements" if len(got) == 1 else f"all elements of {name_of(number)}"
                size = f"{100 * abs(bias):.1f}" if abs(bias) >= 1e-3 else f"{100 * abs(bias):.2g}"
                return f"{what} are {size} % too {'small' if bias < 0 else 'large'}"
    return ""


def _common_factor(got: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the one factor by which the elements differ from the exact ones, or 1.0 if there is none."""
    step = max(1, got.numel() // _MEDIAN_SAMPLE)
    one, truth = (wide(tensor.flatten()[::step]) for tensor in (got, exact))
    usable = torch.isfinite(one) & torch.isfinite(truth)
    size = torch.where(usable, truth.abs(), 0.0)
    large = size > 1e-3 * size.square().mean().sqrt()
    if not bool(large.any()):
        return 1.0
    ratios = one[large] / truth[large]
    ratios = ratios.real if ratios.is_complex() else ratios
    middle = float(ratios.median())
    bias = abs(middle - 1.0)
    most = _CONSTANT_SHARE if bias > _COARSEST_STEP else _EXACT_SHARE
    # Half of the elements may be off by one factor, and the others right; or all of them nearly zero.
    near = (ratios - middle).abs() <= most * min(bias, middle)
    return middle if middle > 0.0 and float(near.double().mean()) >= _ALIKE_SHARE else 1.0


def moved(tensors: Sequence[torch.Tensor], most: float, *, together: bool) -> list[torch.Tensor]:
    """Return the tensors in float64, with each element moved at random by up to `most` of itself.

    If `together`, all elements of a tensor move in one direction, so that sums move as well. Tensors that
    count in steps are returned unchanged.
    """
    return [_moved(wide(t), most, together) if not counts_in_steps(t) else t for t in tensors]


def _moved(wide: torch.Tensor, most: float, together: bool) -> torch.Tensor:
    shares = torch.rand(wide.shape, dtype=torch.float64, device=wide.device)
    direction = float(torch.randint(0, 2, ())) * 2 - 1
    return wide * (1.0 + most * (direction * shares if together else 2 * shares - 1))


def most_moved(precision: Precision) -> float:
    """Return the relative error that an honest kernel may make in all."""
    return _PRECISION_FACTOR[precision] * _UNIT_ROUNDOFF[precision]


def unit_in_the_last_place(precision: Precision) -> float:
    """Return the relative change of an input that still changes most inputs after they are rounded again."""
    return max(FEW_ROUNDOFFS, 2 * _UNIT_ROUNDOFF[precision])


def rounding_of_kinks(precision: Precision) -> float:
    """Return the relative change of an element by which rounding may move it across a kink.

    In half precision that is no more than rounding once: sums are kept in fp32, and the tolerance is wide.
    """
    return most_moved(precision) if precision == "fp32" else 2 * _UNIT_ROUNDOFF[precision]


def heavy_tailed(tensor: torch.Tensor, most: float) -> torch.Tensor:
    """Return the tensor with each element multiplied by a log-normal factor of at most `most`."""
    factors = torch.randn(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    return factors.mul_(_TAIL).exp_().clamp_(max=most).mul_(tensor)


def sparse_probe(tensor: torch.Tensor, keep_share: float) -> torch.Tensor:
    """Return `tensor` with about `keep_share` of its elements kept and the others zero.

    A long sum hides the rounding of its terms behind that of the summation: with half a million terms
    an honest serial fp32 sum errs more than a TF32 product. If only a handful of terms are not zero,
    adding the others is exact, and the precision of the products stands out. Structure is kept: zeros
    stay zero, and a symmetric matrix stays symmetric.
    """
    mask = torch.rand(tensor.shape, device=tensor.device) < keep_share
    square = tensor.dim() >= 2 and tensor.shape[-1] == tensor.shape[-2]
    compared = tensor.float() if is_float8(tensor) else tensor
    if square and torch.equal(compared, compared.mT):
        upper = torch.triu(mask)
        mask = upper | upper.mT
    return torch.where(mask, tensor, 0)
