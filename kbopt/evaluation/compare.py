"""Is an answer right, and was it computed at the task's precision? Pure functions of tensors.

Two different questions. *Right*: every element within a tolerance of the float64 answer, wide enough for
any order of summation. *Precision*: the root mean square error compared with the reference's own; half
precision or TF32 inside an fp32 task stay within the tolerance and are told apart here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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

_OWN_ERROR_FACTOR = 16.0
"""How many times the reference's largest error an element may be off: one level of Strassen's algorithm
costs six. What is systematically less precise than the reference is found by `is_downgrade`."""

_MEDIAN_SAMPLE = 2**16
_PIECE_ELEMENTS = 2**26


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
    own_errors: Sequence[float] = (),
) -> Mismatch | None:
    """The worst element outside the tolerance, None where every output is right.

    `exact` is in float64, or equal to `reference`; then `own_errors` says what `largest_errors` found of
    the reference on other inputs. A floating element may differ by `tolerance` times (its own size + the
    output's root mean square, at most 1) plus sixteen times the reference's own largest error. Elements
    where the reference is not finite must not be finite either. Other dtypes are equal.
    """
    known = own_errors or (0.0,) * len(exact)
    for number, (got, want, own, error) in enumerate(zip(actual, exact, reference, known, strict=True)):
        if _obviously_right(got, own, tolerance):
            continue
        found = _worst_element(got, want, own, tolerance, error)
        if found is not None:
            index, num_wrong = found
            return Mismatch(
                output=number,
                index=index,
                actual=float(got[index]),
                expected=float(want[index]),
                num_wrong=num_wrong,
                num_elements=got.numel(),
            )
    return None


def largest_errors(reference: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]) -> tuple[float, ...]:
    """For each output, how far the reference's own answer lies from float64 at the most."""
    return tuple(_extent(own, want)[0] for own, want in zip(reference, exact, strict=True))


def _pieces(*tensors: torch.Tensor) -> Iterator[tuple[int, tuple[torch.Tensor, ...]]]:
    """Slices along the first dimension with its start, so that float64 copies stay small."""
    first = tensors[0]
    rows = first.shape[0] if first.dim() else 1
    step = max(1, rows * _PIECE_ELEMENTS // max(1, first.numel()))
    if step >= rows:
        yield 0, tensors
        return
    for start in range(0, rows, step):
        yield start, tuple(t[start : start + step] for t in tensors)


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
    square_sum, furthest = 0.0, 0.0
    for _, (one, other) in _pieces(got, own):
        wide = other.float() if other.dtype in (torch.float16, torch.bfloat16) else other
        square_sum += float(wide.square().sum(dtype=torch.float64))
        distance = float((one - wide).abs_().max())
        if not distance <= tolerance:
            return False
        furthest = max(furthest, distance)
    return furthest <= 0.5 * tolerance * min(1.0, math.sqrt(square_sum / own.numel()))


def _extent(own: torch.Tensor, want: torch.Tensor) -> tuple[float, float]:
    """The largest distance of `own` from `want`, and the root mean square of `want`: both where finite."""
    if not own.is_floating_point() or not own.numel():
        return 0.0, 0.0
    largest, square_sum, count = 0.0, 0.0, 0
    for _, (one, other) in _pieces(own, want):
        truth = other.double()
        comparable = torch.isfinite(one)
        largest = max(largest, float(torch.where(comparable, (one.double() - truth).abs(), 0.0).max()))
        square_sum += float(torch.where(comparable, truth, 0.0).square().sum())
        count += int(comparable.sum())
    return largest, math.sqrt(square_sum / count) if count else 0.0


def _worst_element(
    got: torch.Tensor, want: torch.Tensor, own: torch.Tensor, tolerance: float, known_error: float
) -> tuple[tuple[int, ...], int] | None:
    """Index of the element that is furthest off among the wrong ones, and how many are wrong."""
    own_error, rms = _extent(own, want)
    slack = _OWN_ERROR_FACTOR * max(own_error, known_error)
    worst, total = -1.0, 0
    index: tuple[int, ...] = ()
    for start, (one, truth, other) in _pieces(got, want, own):
        wrong, distance = _wrong_elements(one, truth, other, tolerance, min(1.0, rms), slack)
        num_wrong = int(wrong.sum())
        total += num_wrong
        if num_wrong:
            candidates = torch.where(wrong, distance, -1.0)
            flat = int(candidates.argmax())
            if float(candidates.flatten()[flat]) > worst:
                worst = float(candidates.flatten()[flat])
                row, *rest = _unravel(flat, wrong.shape) or (0,)
                index = (start + row, *rest) if got.dim() else ()
    return (index, total) if total else None


def _wrong_elements(
    got: torch.Tensor,
    want: torch.Tensor,
    own: torch.Tensor,
    tolerance: float,
    scale: float,
    slack: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    if not own.is_floating_point():
        wrong = got != own
        return wrong, wrong.double()
    got, want, own = got.double(), want.double(), own.double()
    comparable = torch.isfinite(own)
    distance = torch.where(comparable, (got - want).abs(), 0.0)
    allowed = tolerance * (scale + torch.where(comparable, want.abs(), 0.0)) + slack
    # `not (<=)` so that a NaN counts as wrong; an infinity is to be met by anything not finite.
    wrong = torch.where(comparable, ~(distance <= allowed), torch.isfinite(got) & ~torch.isfinite(want))
    return wrong, torch.nan_to_num(distance, nan=math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """Relative error against float64: `rms` over the output's root mean square, `median` by element."""

    rms: float
    median: float


def measure_error(got: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]) -> Error:
    """The worst output's error. Integer outputs and elements that are not finite do not count."""
    errors = [
        _relative_error(one, truth)
        for one, truth in zip(got, exact, strict=True)
        if one.is_floating_point() and one.numel()
    ]
    return Error(
        rms=max((error.rms for error in errors), default=0.0),
        median=max((error.median for error in errors), default=0.0),
    )


def _relative_error(got: torch.Tensor, exact: torch.Tensor) -> Error:
    error_sum, square_sum = 0.0, 0.0
    step = max(1, got.numel() // _MEDIAN_SAMPLE)
    differences, sizes = [], []
    for _, (one, truth) in _pieces(got, exact):
        want = truth.double()
        difference, size = (one.double() - want).abs_(), want.abs()
        if not bool(torch.isfinite(difference.sum() + size.sum())):
            usable = torch.isfinite(want) & torch.isfinite(one)
            difference, size = difference[usable], size[usable]
        error_sum += float(difference.square().sum())
        square_sum += float(size.square().sum())
        differences.append(difference.flatten()[::step].clone())
        sizes.append(size.flatten()[::step].clone())
    if square_sum == 0.0:
        return Error(rms=0.0, median=0.0)
    difference, size = torch.cat(differences), torch.cat(sizes)
    # Elements near zero are left out: cancellation makes their relative error meaningless.
    large = size > 1e-3 * math.sqrt(square_sum / got.numel())
    middle = float((difference[large] / size[large]).median()) if bool(large.any()) else 0.0
    return Error(rms=math.sqrt(error_sum / square_sum), median=middle)


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
