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
from kbopt.evaluation.passes import NameOf, output_name

TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-2}
"""KernelBench's atol = rtol per precision; here atol is scaled down to the size of the outputs."""


_OWN_ERROR_FACTOR = 16.0
"""How many times the reference's largest error an element may be off: one level of Strassen's algorithm
costs six. What is systematically less precise than the reference is found by `is_downgrade`."""

_PIECE_ELEMENTS = {"cuda": 2**26, "cpu": 2**22}
"""Elements that are compared at once, which takes some eight float64 copies: 4 GiB on a GPU. On a CPU, whose
memory is also the task's, 256 MiB; more at once are not compared faster there."""


_PASSING_SHARE = 1e-3
"""Of an output that counts in steps, how many elements may be what a near tie also gives. An honest kernel's
rounding decides about one in a hundred thousand the other way, half precision one in twenty."""


_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}

Nearby = Callable[[], Iterable[Sequence[torch.Tensor]]]
"""The float64 answers to inputs that are moved by as much as rounding moves them, each time other ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """The worst element of one output, and how many were wrong. `name` is what messages call the output."""

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
                name=name_of(number),
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


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """In double precision."""
    return tensor.to(torch.complex128) if tensor.is_complex() else tensor.double()


def pieces(*tensors: torch.Tensor) -> Iterator[tuple[int, tuple[torch.Tensor, ...]]]:
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
    for _, (one, other) in pieces(got, own):
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
    for _, (one, other) in pieces(own, want):
        mine, truth = wide(one), wide(other)
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
    for start, (one, truth, other) in pieces(got, want, own):
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
    got, want, own = wide(got), wide(want), wide(own)
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
