"""Is an answer right, and was it computed at the task's precision? Pure functions of tensors.

Two different questions. *Right*: every element within a tolerance of the float64 answer, wide enough for
any order of summation. *Precision*: the root mean square error compared with the reference's own; half
precision or TF32 inside an fp32 task stay within the tolerance and are told apart here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
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
_PIECE_ELEMENTS = {"cuda": 2**26, "cpu": 2**22}
"""Elements that are compared at once, which takes some eight float64 copies: 4 GiB on a GPU. On a CPU, whose
memory is also the task's, 256 MiB; more at once are not compared faster there."""


_PASSING_SHARE = 1e-3
"""Of an output that counts in steps, how many elements may be what a near tie also gives. An honest kernel's
rounding decides about one in a hundred thousand the other way, half precision one in twenty."""

_CONSTANT_SHARE = 0.05
_EXACT_SHARE = 1e-3
_COARSEST_STEP = 2.0**-7
"""When the elements' relative errors are one factor: they scatter by less than a twentieth of it, or by a
thousandth where it is no more than truncating two numbers to bf16 takes off, which scatters as sums do."""

_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}

Nearby = Callable[[], Iterable[Sequence[torch.Tensor]]]
"""The float64 answers to inputs that are moved by as much as rounding moves them, each time other ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """The worst element of one output, and how many were wrong."""

    output: int
    index: tuple[int, ...]
    actual: complex
    expected: complex
    num_wrong: int
    num_elements: int

    def __str__(self) -> str:
        where = f"output {self.output} at index {list(self.index)}"
        share = f"{self.num_wrong} of {self.num_elements} elements wrong"
        return f"{where}: expected {_shown(self.expected)}, got {_shown(self.actual)} ({share})"


def _shown(value: complex) -> str:
    return str(value) if isinstance(value, int) else f"{value:.8g}"


def find_mismatch(
    actual: Sequence[torch.Tensor],
    exact: Sequence[torch.Tensor],
    reference: Sequence[torch.Tensor],
    tolerance: float,
    own_errors: Sequence[float] = (),
    nearby: Nearby | None = None,
) -> Mismatch | None:
    """The worst element outside the tolerance, None where every output is right.

    `exact` is in float64, or equal to `reference`; then `own_errors` says what `largest_errors` found of
    the reference on other inputs. An element may differ by `tolerance` times (its own size + the
    output's root mean square, at most 1) plus sixteen times the reference's own largest error; complex ones
    by that distance in the plane. A NaN is right where the answer is NaN, an infinity where it is that one.
    Integers and floats of eight bits equal the float64 answer or the reference's own, but for a few
    elements that equal one of the `nearby` answers: see docs/evaluation.md.
    """
    known = own_errors or (0.0,) * len(exact)
    for number, (got, want, own, error) in enumerate(zip(actual, exact, reference, known, strict=True)):
        if _obviously_right(got, own, tolerance):
            continue
        if counts_in_steps(own):
            others = (answer[number] for answer in nearby()) if nearby is not None else ()
            found = _first_wrong_step(got, want, own, error, others)
        else:
            found = _worst_element(got, want, own, tolerance, error)
        if found is not None:
            index, num_wrong = found
            return Mismatch(
                output=number,
                index=index,
                actual=got[index].item(),
                expected=want[index].item(),
                num_wrong=num_wrong,
                num_elements=got.numel(),
            )
    return None


def largest_errors(reference: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]) -> tuple[float, ...]:
    """For each output, how far the reference's own answer lies from float64 at the most.

    For an output that counts in steps, the share of elements that differ.
    """
    return tuple(
        _share(_differs(own, want)) if counts_in_steps(own) else _extent(own, want)[0]
        for own, want in zip(reference, exact, strict=True)
    )


def _share(mask: torch.Tensor) -> float:
    return int(mask.sum()) / max(1, mask.numel())


def counts_in_steps(tensor: torch.Tensor) -> bool:
    """Whether neighbouring values of its type lie further apart than any tolerance."""
    return not (tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype.itemsize > 1))


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether all elements are, or are none that measure_error looks at."""
    return counts_in_steps(tensor) or bool(torch.isfinite(tensor).all())


def _differs(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Element by element, for types that count in steps; a NaN does not differ from a NaN."""
    if one.is_floating_point():
        left, right = one.float(), other.float()
        return (left != right) & ~(left.isnan() & right.isnan())
    as_signed = _SIGNED.get(one.dtype, one.dtype)
    return one.view(as_signed) != other.view(as_signed)


def _first_wrong_step(
    got: torch.Tensor,
    want: torch.Tensor,
    own: torch.Tensor,
    known_share: float,
    others: Iterable[torch.Tensor],
) -> tuple[tuple[int, ...], int] | None:
    """Index of the first element that is neither the float64 answer, nor the reference's own, nor decided by
    rounding; and how many are not. None where there is no such element.
    """
    wrong = _differs(got, want) & _differs(got, own)
    num_wrong = int(wrong.sum())
    own_share = max(known_share, _share(_differs(own, want)))
    if num_wrong <= max(1.0, max(_PASSING_SHARE, _OWN_ERROR_FACTOR * own_share) * got.numel()):
        for other in others:
            wrong &= _differs(got, other)
            num_wrong = int(wrong.sum())
            if not num_wrong:
                break
    if not num_wrong:
        return None
    return _unravel(int(wrong.flatten().int().argmax()), wrong.shape), num_wrong


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.complex128) if tensor.is_complex() else tensor.double()


def _pieces(*tensors: torch.Tensor) -> Iterator[tuple[int, tuple[torch.Tensor, ...]]]:
    """Slices along the first dimension with its start, so that float64 copies stay small."""
    first = tensors[0]
    rows = first.shape[0] if first.dim() else 1
    step = max(1, rows * _PIECE_ELEMENTS[first.device.type] // max(1, first.numel()))
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
    if not own.numel():
        return True
    if counts_in_steps(own):
        return not bool(_differs(got, own).any())
    if own.is_complex():
        got, own = torch.view_as_real(got), torch.view_as_real(own)
    square_sum, furthest = 0.0, 0.0
    for _, (one, other) in _pieces(got, own):
        wide = other.float() if other.dtype in (torch.float16, torch.bfloat16) else other
        apart = (one - wide).abs_()
        distance = float(apart.max())
        if math.isnan(distance):  # As between two infinities, which may be the same one.
            distance = float(apart.masked_fill_(one == wide, 0.0).max())
            wide = wide.masked_fill(wide.isinf(), 0.0)
        square_sum += float(wide.square().sum(dtype=torch.float64))
        if not distance <= tolerance:
            return False
        furthest = max(furthest, distance)
    return furthest <= 0.5 * tolerance * min(1.0, math.sqrt(square_sum / own.numel()))


def _extent(own: torch.Tensor, want: torch.Tensor) -> tuple[float, float]:
    """Where both are finite: the largest distance of `own` from `want`, root mean square of `want`."""
    if counts_in_steps(own) or not own.numel():
        return 0.0, 0.0
    largest, square_sum, count = 0.0, 0.0, 0
    for _, (one, other) in _pieces(own, want):
        mine, truth = _wide(one), _wide(other)
        comparable = torch.isfinite(mine) & torch.isfinite(truth)
        largest = max(largest, float(torch.where(comparable, (mine - truth).abs(), 0.0).max()))
        square_sum += float(torch.where(comparable, truth.abs(), 0.0).square().sum())
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
    """Which elements are wrong, and how far each of them is off."""
    got, want, own = _wide(got), _wide(want), _wide(own)
    distance = (got - want).abs()
    # `not (<=)` so that a NaN counts as wrong.
    wrong = ~(distance <= tolerance * (scale + want.abs()) + slack)
    special = ~(torch.isfinite(want) & torch.isfinite(own))
    if bool(special.any()):
        if got.is_complex():
            parts = [torch.view_as_real(tensor) for tensor in (got, want, own)]
            wrong_special = _wrong_special(*parts, tolerance=tolerance, scale=scale, slack=slack).any(-1)
        else:
            wrong_special = _wrong_special(got, want, own, tolerance=tolerance, scale=scale, slack=slack)
        wrong = torch.where(special, wrong_special, wrong)
    return wrong, torch.nan_to_num(distance, nan=math.inf)


def _wrong_special(
    got: torch.Tensor,
    want: torch.Tensor,
    own: torch.Tensor,
    *,
    tolerance: float,
    scale: float,
    slack: float,
) -> torch.Tensor:
    """Where float64 or the reference is not finite: an element is right if it is what one of them is."""
    wrong = torch.ones_like(got, dtype=torch.bool)
    for answer in (want, own):
        same = (got == answer) | (got.isnan() & answer.isnan())
        close = (got - answer).abs() <= tolerance * (scale + answer.abs()) + slack
        wrong &= ~torch.where(torch.isfinite(answer), close, same)
    return wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """Relative error against float64: `rms` over the output's root mean square, `median` by element."""

    rms: float
    median: float


def measure_error(got: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]) -> Error:
    """The worst output's error. What counts in steps and elements that are not finite are left out."""
    errors = [
        _relative_error(one, truth)
        for one, truth in zip(got, exact, strict=True)
        if not counts_in_steps(one) and one.numel()
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
        want = _wide(truth)
        difference, size = (_wide(one) - want).abs(), want.abs()
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


def describe_bias(got: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]) -> str:
    """`all elements are 1.0 % too small`, where one factor is what is wrong with an output; else empty."""
    for number, (one, truth) in enumerate(zip(got, exact, strict=True)):
        if not counts_in_steps(one) and one.numel():
            bias = _common_factor(one, truth) - 1.0
            if bias:
                what = "all elements" if len(got) == 1 else f"all elements of output {number}"
                size = f"{100 * abs(bias):.1f}" if abs(bias) >= 1e-3 else f"{100 * abs(bias):.2g}"
                return f"{what} are {size} % too {'small' if bias < 0 else 'large'}"
    return ""


def _common_factor(got: torch.Tensor, exact: torch.Tensor) -> float:
    """By which the elements differ from the exact ones, 1 where there is no one factor, or it is none."""
    step = max(1, got.numel() // _MEDIAN_SAMPLE)
    one, truth = (_wide(tensor.flatten()[::step]) for tensor in (got, exact))
    usable = torch.isfinite(one) & torch.isfinite(truth)
    size = torch.where(usable, truth.abs(), 0.0)
    large = size > 1e-3 * size.square().mean().sqrt()
    if not bool(large.any()):
        return 1.0
    ratios = one[large] / truth[large]
    ratios = ratios.real if ratios.is_complex() else ratios
    middle = float(ratios.median())
    bias, scatter = abs(middle - 1.0), float((ratios - middle).abs().median())
    most = _CONSTANT_SHARE if bias > _COARSEST_STEP else _EXACT_SHARE
    return middle if middle > 0.0 and scatter <= most * bias else 1.0


def moved(tensors: Sequence[torch.Tensor], precision: Precision, *, together: bool) -> list[torch.Tensor]:
    """In float64, each element moved at random by up to what an honest kernel may err by in all.

    `together` all in one direction, so that sums move as well.
    """
    most = _PRECISION_FACTOR[precision] * _UNIT_ROUNDOFF[precision]
    return [_moved(_wide(t), most, together) if not counts_in_steps(t) else t for t in tensors]


def _moved(wide: torch.Tensor, most: float, together: bool) -> torch.Tensor:
    shares = torch.rand(wide.shape, dtype=torch.float64, device=wide.device)
    direction = float(torch.randint(0, 2, ())) * 2 - 1
    return wide * (1.0 + most * (direction * shares if together else 2 * shares - 1))


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
