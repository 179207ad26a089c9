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
from kbopt.evaluation.judge.slack import OWN_ERROR_FACTOR, Slack, local_slack
from kbopt.evaluation.judge.steps import counts_in_steps, differs, first_wrong_step, share, unravel
from kbopt.evaluation.passes import NameOf, output_name

TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-2}
"""KernelBench's atol and rtol, which are equal, for each precision. Here atol is multiplied by the outputs'
root mean square if that is below 1."""
_PIECE_ELEMENTS = {"cuda": 2**26, "cpu": 2**16}
"""Elements that are compared at once. That takes about eight copies in float64: 4 GiB on a GPU, and 4 MiB on
a CPU, whose caches hold them. With 2^22 elements each copy came from fresh pages, in twice the time."""
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
    moved_errors: Sequence[float] = (),
    name_of: NameOf = output_name,
) -> Mismatch | None:
    """Return the worst element of the first wrong output, or None if every output is right.

    If the output counts in steps, it is the first wrong element.

    `exact` is the answer in float64. It may also equal `reference`, the reference's own answer; then
    `own_errors` has what `largest_errors` found on other inputs. An element may differ by `tolerance` times
    (its own size + the output's root mean square, at most 1), plus sixteen times the reference's own largest
    error, see `slack`, or that many times one of the `moved_errors`. For complex elements that is the
    distance in the plane. A NaN is right where the answer is NaN, and an infinity where the answer is the
    same infinity. Integers and floats of 8 bits have to equal the float64 answer or the reference's own,
    except a few elements that equal one of the `nearby` answers: see docs/evaluation.md.
    """
    known, moved = (errors or (0.0,) * len(exact) for errors in (own_errors, moved_errors))
    every = zip(actual, exact, reference, known, moved, strict=True)
    for number, (got, want, own, error, moved_error) in enumerate(every):
        if _obviously_right(got, own, tolerance):
            continue
        if counts_in_steps(own):
            others = (answer[number] for answer in nearby()) if nearby is not None else ()
            found = first_wrong_step(got, want, own, error, others)
        else:
            found = _worst_element(got, want, own, tolerance, error, moved_error)
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


def extents(reference: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]) -> list[tuple[float, Slack]]:
    """Return for each output the root mean square of the exact answer, and the slack of its elements."""
    return [_limits(own, want) for own, want in zip(reference, exact, strict=True)]


def accepts(
    actual: Sequence[torch.Tensor],
    exact: Sequence[torch.Tensor],
    reference: Sequence[torch.Tensor],
    tolerance: float,
    known: Sequence[tuple[float, Slack]],
) -> bool:
    """Return whether `find_mismatch` would find nothing. It looks no further than the first wrong piece.

    `known` are the `extents` of `reference` and `exact`.
    """
    for got, want, own, (rms, slack) in zip(actual, exact, reference, known, strict=True):
        if _obviously_right(got, own, tolerance):
            continue
        bounds = tolerance, min(1.0, rms), slack
        if counts_in_steps(own):
            if first_wrong_step(got, want, own, 0.0, ()) is not None:
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
        share(differs(own, want)) if counts_in_steps(own) else _extent(own, want)[0]
        for own, want in zip(reference, exact, strict=True)
    )


def is_finite(tensor: torch.Tensor) -> bool:
    """Return whether all elements are finite, or the tensor counts in steps, so that no error is measured."""
    if counts_in_steps(tensor) or not tensor.numel():
        return True
    # A NaN is the least and the largest element of its piece, so that no mask is needed.
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return all(math.isfinite(float(end)) for _, (piece,) in pieces(real) for end in torch.aminmax(piece))


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


def _obviously_right(got: torch.Tensor, own: torch.Tensor, tolerance: float) -> bool:
    """Return True only if an output is right, by a cheap test that most outputs pass. False says nothing.

    The output lies within half the tolerance of the reference, which lies within its own error of the truth.
    """
    if not own.numel():
        return True
    if counts_in_steps(own):
        return not bool(differs(got, own).any())
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


def _limits(
    own: torch.Tensor, want: torch.Tensor, known_error: float = 0.0, moved_error: float = 0.0
) -> tuple[float, Slack]:
    own_error, rms = _extent(own, want)
    most, moved = (OWN_ERROR_FACTOR * error for error in (max(own_error, known_error), moved_error))
    if not own_error or own.dtype.itemsize < 4:  # It is not known, or there is none; or see `slack`.
        return rms, Slack(most=most, moved=moved)
    each = ((wide(truth), one) for _, (one, truth) in pieces(own, want))
    local = local_slack((_distance(one, truth), truth.abs()) for truth, one in each)
    return rms, Slack(most=most, moved=moved, local=local)


def _worst_element(
    got: torch.Tensor,
    want: torch.Tensor,
    own: torch.Tensor,
    tolerance: float,
    known_error: float,
    moved_error: float,
) -> tuple[tuple[int, ...], int] | None:
    """Return the index of the wrong element that is furthest off, and the number of wrong ones, or None."""
    _, rms = _extent(own, want)
    found = _worst_beyond(got, want, own, tolerance, min(1.0, rms), Slack(most=0.0))
    if found is None:
        return None  # As for most answers, which spares a look at the reference's errors.
    _, slack = _limits(own, want, known_error, moved_error)
    return _worst_beyond(got, want, own, tolerance, min(1.0, rms), slack)


def _worst_beyond(
    got: torch.Tensor, want: torch.Tensor, own: torch.Tensor, tolerance: float, scale: float, slack: Slack
) -> tuple[tuple[int, ...], int] | None:
    worst, worst_at, total = -1.0, 0, 0
    for start, (one, truth, other) in pieces(got, want, own):
        wrong, distance = _wrong_elements(one, truth, other, tolerance, scale, slack)
        num_wrong = int(wrong.sum())
        total += num_wrong
        if num_wrong:
            candidates = torch.where(wrong, distance.nan_to_num_(nan=math.inf), -1.0).flatten()
            flat = int(candidates.argmax())
            if float(candidates[flat]) > worst:
                worst, worst_at = float(candidates[flat]), start + flat
    return (unravel(worst_at, got.shape), total) if total else None


def _wrong_elements(
    got: torch.Tensor,
    want: torch.Tensor,
    own: torch.Tensor,
    tolerance: float,
    scale: float,
    slack: Slack,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a mask of the wrong elements, and how far each element is off, which may be NaN."""
    want = wide(want)
    distance = _distance(got, want)
    size = want.abs()
    allowed = slack.at(size)
    limit = size.add_(scale).mul_(tolerance).add_(allowed)
    # `not (<=)` so that a NaN counts as wrong.
    wrong = ~(distance <= limit)
    if not (is_finite(want) and is_finite(own)):
        special = ~(torch.isfinite(want) & torch.isfinite(own))
        got, own = wide(got), wide(own)
        if got.is_complex():
            parts = [torch.view_as_real(tensor) for tensor in (got, want, own)]
            wrong_special = _wrong_special(*parts, tolerance=tolerance, scale=scale, slack=slack.most).any(-1)
        else:
            wrong_special = _wrong_special(got, want, own, tolerance=tolerance, scale=scale, slack=slack.most)
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
