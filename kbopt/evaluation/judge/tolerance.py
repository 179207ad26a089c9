"""Compares an answer with the float64 answer, element by element. Pure functions of tensors.

The tolerance is wide enough for any order of summation, so half precision or TF32 inside an fp32 task may
stay within it. `errors` tells them apart by the root mean square error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from kbopt.core.protocol import Precision
from kbopt.evaluation.passes import NameOf, output_name

TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-2}
"""KernelBench's atol and rtol, which are equal, for each precision. Here atol is multiplied by the outputs'
root mean square if that is below 1."""
_OWN_ERROR_FACTOR = 16.0
"""An element may be off by this many times the reference's largest error: one level of Strassen's algorithm
costs six. `errors.is_downgrade` finds what is systematically less precise than the reference."""
_PIECE_ELEMENTS = {"cuda": 2**26, "cpu": 2**16}
"""Elements that are compared at once. That takes about eight copies in float64: 4 GiB on a GPU, and 4 MiB on
a CPU, whose caches hold them. With 2^22 elements each copy came from fresh pages, in twice the time."""
_PASSING_SHARE = 1e-3
"""Share of the elements that may differ in an output that counts in steps, if near ties explain them. An
honest kernel's rounding decides about one in a hundred thousand otherwise, half precision one in twenty."""
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
"""Signed types of the same sizes as unsigned ones on which torch has few operations."""

Nearby = Callable[[], Iterable[Sequence[torch.Tensor]]]
"""Returns float64 answers to inputs moved as much as rounding moves them, other ones at each call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """The worst element of one output, and how many were wrong. `name` is the output's name in messages."""

    name: str
    index: tuple[int, ...]
    actual: complex
    expected: complex
    num_wrong: int
    num_elements: int

    def __str__(self) -> str:
        where = f"{self.name} at index {list(self.index)}"
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
    name_of: NameOf = output_name,
) -> Mismatch | None:
    """Return the worst element of the first wrong output, or None if every output is right.

    If the output counts in steps, it is the first wrong element.

    `exact` is the answer in float64. It may also equal `reference`, the reference's own answer; then
    `own_errors` has what `largest_errors` found on other inputs. An element may differ by `tolerance` times
    (its own size + the output's root mean square, at most 1), plus sixteen times the reference's own largest
    error. For complex elements that is the distance in the plane. A NaN is right where the answer is NaN, and
    an infinity where the answer is the same infinity. Integers and floats of 8 bits have to equal the float64
    answer or the reference's own, except a few elements that equal one of the `nearby` answers: see
    docs/evaluation.md.
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
                name=name_of(number),
                index=index,
                actual=got[index].item(),
                expected=want[index].item(),
                num_wrong=num_wrong,
                num_elements=got.numel(),
            )
    return None


def extents(reference: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]) -> list[tuple[float, float]]:
    """Return for each output the reference's largest error, and the root mean square of the exact answer."""
    return [_extent(own, want) for own, want in zip(reference, exact, strict=True)]


def accepts(
    actual: Sequence[torch.Tensor],
    exact: Sequence[torch.Tensor],
    reference: Sequence[torch.Tensor],
    tolerance: float,
    known: Sequence[tuple[float, float]],
) -> bool:
    """Return whether `find_mismatch` would find nothing. It looks no further than the first wrong piece.

    `known` are the `extents` of `reference` and `exact`.
    """
    for got, want, own, (own_error, rms) in zip(actual, exact, reference, known, strict=True):
        if _obviously_right(got, own, tolerance):
            continue
        bounds = tolerance, min(1.0, rms), _OWN_ERROR_FACTOR * own_error
        if counts_in_steps(own):
            if _first_wrong_step(got, want, own, 0.0, ()) is not None:
                return False
        elif any(
            bool(_wrong_elements(one, truth, other, *bounds)[0].any())
            for _, (one, truth, other) in pieces(got, want, own)
        ):
            return False
    return True


def largest_errors(reference: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]) -> tuple[float, ...]:
    """Return the largest distance of the reference's own answer from float64, for each output.

    For an output that counts in steps it is the share of elements that differ.
    """
    return tuple(
        _share(_differs(own, want)) if counts_in_steps(own) else _extent(own, want)[0]
        for own, want in zip(reference, exact, strict=True)
    )


def _share(mask: torch.Tensor) -> float:
    return int(mask.sum()) / max(1, mask.numel())


def counts_in_steps(tensor: torch.Tensor) -> bool:
    """Return whether neighbouring values of the tensor's type lie further apart than any tolerance."""
    return not (tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype.itemsize > 1))


def is_finite(tensor: torch.Tensor) -> bool:
    """Return whether all elements are finite, or the tensor counts in steps, so that no error is measured."""
    if counts_in_steps(tensor) or not tensor.numel():
        return True
    # A NaN is the least and the largest element of its piece, so that no mask is needed.
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return all(math.isfinite(float(end)) for _, (piece,) in pieces(real) for end in torch.aminmax(piece))


def _differs(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return a mask of the elements that differ, for types that count in steps. Two NaNs do not differ."""
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
    """Return the index of the first wrong element and the number of wrong ones, or None if there is none.

    A wrong element is neither the float64 answer nor the reference's own, and not decided by rounding either.
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


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor in double precision."""
    return tensor.to(torch.complex128) if tensor.is_complex() else tensor.double()


def pieces(*tensors: torch.Tensor) -> Iterator[tuple[int, tuple[torch.Tensor, ...]]]:
    """Yield pieces of tensors of one shape, so that float64 copies stay small.

    Each comes with the number of its first element, in the order of indices. Tensors that are not contiguous
    are split along their first dimension only.
    """
    if all(tensor.is_contiguous() for tensor in tensors):
        tensors = tuple(tensor.view(-1) for tensor in tensors)
    first = tensors[0]
    rows = first.shape[0] if first.dim() else 1
    row_elements = max(1, first.numel() // max(1, rows))
    step = max(1, _PIECE_ELEMENTS[first.device.type] // row_elements)
    if step >= rows:
        yield 0, tensors
        return
    for start in range(0, rows, step):
        yield start * row_elements, tuple(t[start : start + step] for t in tensors)


def square_sum(tensor: torch.Tensor) -> float:
    """Return the sum of the squares of the elements' sizes, without a copy of the tensor's size."""
    return float(torch.linalg.vector_norm(tensor).square())  # Python's ** raises where this is infinite.


def _unravel(flat: int, shape: Sequence[int]) -> tuple[int, ...]:
    """torch.unravel_index without its import of sympy, which takes two seconds."""
    index: list[int] = []
    for size in reversed(shape):
        flat, at = divmod(flat, size)
        index.append(at)
    return tuple(reversed(index))


def _obviously_right(got: torch.Tensor, own: torch.Tensor, tolerance: float) -> bool:
    """Return True only if an output is right, by a cheap test that most outputs pass. False says nothing.

    The output lies within half the tolerance of the reference, which lies within its own error of the truth.
    """
    if not own.numel():
        return True
    if counts_in_steps(own):
        return not bool(_differs(got, own).any())
    if own.is_complex():
        got, own = torch.view_as_real(got), torch.view_as_real(own)
    squares, furthest = 0.0, 0.0
    for _, (one, other) in pieces(got, own):
        wide = other.float() if other.dtype in (torch.float16, torch.bfloat16) else other
        apart = (one - wide).abs_()
        distance = float(apart.max())
        if math.isnan(distance):  # The distance between two infinities is NaN, though they may be equal.
            distance = float(apart.masked_fill_(one == wide, 0.0).max())
            wide = wide.masked_fill(wide.isinf(), 0.0)
        squares += float(wide.square().sum(dtype=torch.float64))
        if not distance <= tolerance:
            return False
        furthest = max(furthest, distance)
    return furthest <= 0.5 * tolerance * min(1.0, math.sqrt(squares / own.numel()))


def _extent(own: torch.Tensor, want: torch.Tensor) -> tuple[float, float]:
    """Return the largest distance of `own` from `want`, and the root mean square of `want`.

    Only elements that are finite in both count.
    """
    if counts_in_steps(own) or not own.numel():
        return 0.0, 0.0
    largest, squares, count = 0.0, 0.0, 0
    for _, (one, other) in pieces(own, want):
        truth = wide(other)
        distance, some = _distance(one, truth), square_sum(truth)
        furthest, num = float(distance.max()), distance.numel()
        if not math.isfinite(furthest + some):
            comparable = torch.isfinite(one) & torch.isfinite(truth)
            furthest = float(torch.where(comparable, distance, 0.0).max())
            some, num = square_sum(torch.where(comparable, truth, 0.0)), int(comparable.sum())
        largest = max(largest, furthest)
        squares += some
        count += num
    return largest, math.sqrt(squares / count) if count else 0.0


def _distance(got: torch.Tensor, want: torch.Tensor) -> torch.Tensor:
    """Return how far each element is from that of `want`, which is in double precision."""
    apart = want - got
    return apart.abs() if apart.is_complex() else apart.abs_()


def _worst_element(
    got: torch.Tensor, want: torch.Tensor, own: torch.Tensor, tolerance: float, known_error: float
) -> tuple[tuple[int, ...], int] | None:
    """Return the index of the wrong element that is furthest off, and the number of wrong ones, or None."""
    own_error, rms = _extent(own, want)
    slack = _OWN_ERROR_FACTOR * max(own_error, known_error)
    worst, worst_at, total = -1.0, 0, 0
    for start, (one, truth, other) in pieces(got, want, own):
        wrong, distance = _wrong_elements(one, truth, other, tolerance, min(1.0, rms), slack)
        num_wrong = int(wrong.sum())
        total += num_wrong
        if num_wrong:
            candidates = torch.where(wrong, distance.nan_to_num_(nan=math.inf), -1.0).flatten()
            flat = int(candidates.argmax())
            if float(candidates[flat]) > worst:
                worst, worst_at = float(candidates[flat]), start + flat
    return (_unravel(worst_at, got.shape), total) if total else None


def _wrong_elements(
    got: torch.Tensor,
    want: torch.Tensor,
    own: torch.Tensor,
    tolerance: float,
    scale: float,
    slack: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a mask of the wrong elements, and how far each element is off, which may be NaN."""
    want = wide(want)
    distance = _distance(got, want)
    limit = want.abs().add_(scale).mul_(tolerance).add_(slack)
    # `not (<=)` so that a NaN counts as wrong.
    wrong = ~(distance <= limit)
    if not (is_finite(want) and is_finite(own)):
        special = ~(torch.isfinite(want) & torch.isfinite(own))
        got, own = wide(got), wide(own)
        if got.is_complex():
            parts = [torch.view_as_real(tensor) for tensor in (got, want, own)]
            wrong_special = _wrong_special(*parts, tolerance=tolerance, scale=scale, slack=slack).any(-1)
        else:
            wrong_special = _wrong_special(got, want, own, tolerance=tolerance, scale=scale, slack=slack)
        wrong = torch.where(special, wrong_special, wrong)
    return wrong, distance


def _wrong_special(
    got: torch.Tensor,
    want: torch.Tensor,
    own: torch.Tensor,
    *,
    tolerance: float,
    scale: float,
    slack: float,
) -> torch.Tensor:
    """Return a mask of the wrong elements, for places where float64 or the reference is not finite.

    An element is right there if it equals one of the two, or is close to one that is finite.
    """
    wrong = torch.ones_like(got, dtype=torch.bool)
    for answer in (want, own):
        same = (got == answer) | (got.isnan() & answer.isnan())
        close = (got - answer).abs() <= tolerance * (scale + answer.abs()) + slack
        wrong &= ~torch.where(torch.isfinite(answer), close, same)
    return wrong
