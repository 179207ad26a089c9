"""Tells what rounding decides in an answer, by how the answer changes if the inputs are moved a little.

A gradient jumps where forward has a kink, as a relu has at zero and a maximum at two equal values. If an
argument is near a kink, another order of summation gives another gradient, and that one is as right. In fp32
rounding decides about one such argument in a million, and then a whole row of the gradient of a product
differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch

from kbopt.core.protocol import Precision
from kbopt.evaluation.judge import errors, textbook, tolerance
from kbopt.evaluation.judge.products import errors_in_tf32
from kbopt.evaluation.judge.reference import Draw, Output, Reference
from kbopt.evaluation.judge.slack import OWN_ERROR_FACTOR
from kbopt.evaluation.judge.steps import picked
from kbopt.evaluation.judge.values import is_free

_NUM_MOVED = 4
"""Answers to moved inputs, of which the one that differs most counts."""
_MOVED_FACTOR = 2.0
"""An element may be off by this many times the largest change by moved inputs, where there is no float64.
Kernels that rounded elsewhere were off by 0.4 of it at most (decision 109)."""
_NUM_NEAR = 16
"""Gradients at moved inputs that are tried. Each of four equal values is the largest in at least one of them,
except once in a hundred times."""
_UNMET_SHARE = 0.02
"""Share of a gradient's wrong elements that may differ from every gradient at moved inputs."""
_MOST_RMS = 0.1
"""Relative error of a gradient at most. If only a few kinks were decided otherwise, it is smaller."""
_RMS_FACTOR = 4.0
"""A gradient's error may be this many times that of one at moved inputs: the number of jumps scatters."""
_TF32_ROUNDOFF = 2.0**-11
"""The largest relative error of rounding to TF32."""
_TF32_FACTOR = 3.0
"""A gradient's error may be this many times that of TF32, if the task may use it; as in `precision`."""


def errors_of_others(
    reference: Reference,
    draw: Draw,
    got: Sequence[torch.Tensor],
    exact: Output,
    *,
    moved: bool,
    may_use_tf32: bool,
) -> tuple[float, ...]:
    """Return how far each output of an honest kernel may lie from float64 on these inputs, at most.

    Textbook formulas err so much, see `textbook`, and so does the reference in TF32 if that may be used. If
    `moved`, so much changes too if the inputs move by a few units of roundoff. Cancellation needs this: of a
    constant row less its mean, only rounding is left. Where the model refuses float64, `exact` is its own
    answer, and see `_without_float64`.
    """
    each = [textbook.moved_errors(reference, draw, exact.tensors)]
    if not reference.has_exact:
        each.append(_without_float64(reference, draw, got, exact))
    elif moved:
        answers = islice(reference.nearby(draw, errors.FEW_ROUNDOFFS), _NUM_MOVED)
        each += [tolerance.largest_errors(exact.tensors, answer) for answer in answers]
    if may_use_tf32:
        each.append(errors_in_tf32(reference, draw, exact))
    return tuple(map(max, zip(*each, strict=True)))


def _without_float64(
    reference: Reference, draw: Draw, got: Sequence[torch.Tensor], own: Output
) -> tuple[float, ...]:
    """Return how far each output may lie from the reference's own, whose error nobody knows.

    An answer changes more than honest kernels differ if each input moves by a unit in its last place. An
    output whose root mean square error is beyond rounding gets nothing: fewer bits, or a guess.
    """
    step = errors.unit_in_the_last_place(reference.precision)
    most_rms = errors.rounding_of_kinks(reference.precision)  # It moves other elements as far.
    answers = list(islice(reference.nearby(draw, step), _NUM_MOVED))
    found = []
    for number, mine in enumerate(own.tensors):
        largest = max(tolerance.largest_errors([mine], [answer[number]])[0] for answer in answers)
        is_rounding = errors.measure_error([got[number]], [mine]).rms <= most_rms
        found.append(_MOVED_FACTOR / OWN_ERROR_FACTOR * largest if is_rounding else 0.0)
    return tuple(found)


def decides(
    reference: Reference,
    draw: Draw,
    got: Sequence[torch.Tensor],
    exact: Output,
    own: Output,
    tolerated: float,
    may_use_tf32: bool,
) -> bool:
    """Return whether an answer to `draw` is right but for kinks that rounding decided otherwise.

    False without `--backward`. Forward's outputs have to be right as they are. A gradient passes in one of
    two ways. Either its root mean square error is at most `_RMS_FACTOR` times that of gradients at moved
    inputs and at most `_MOST_RMS`, and its median error is that of the task's precision. Or its wrong
    elements, but for `_UNMET_SHARE`, are those of gradients at moved inputs, and its other elements have the
    task's precision.

    So a gradient that is wrong on one side of a kink, where rounding does not decide, stays wrong.
    """
    if reference.gradients is None:
        return False
    first = reference.gradients.num_outputs
    bounds = _Bounds(precision=reference.precision, tolerated=tolerated, may_use_tf32=may_use_tf32)
    answers = [_Answer(*three) for three in zip(got, exact.tensors, own.tensors, strict=True)]
    if not all(map(bounds.are_kept_by, answers[:first])):
        return False
    doubts = [
        _Doubt(answer, number, bounds)
        for number, answer in enumerate(answers)
        if number >= first and not bounds.are_kept_by(answer)
    ]
    for tensors in islice(_near(reference, draw), _NUM_NEAR):
        doubts = [doubt for doubt in doubts if not doubt.is_settled_by(tensors[doubt.number])]
        if not doubts:
            return True
    return False


@dataclass(frozen=True, slots=True)
class _Answer:
    """One tensor of the candidate's answer, of the answer in float64, and of the reference's own."""

    got: torch.Tensor
    exact: torch.Tensor
    own: torch.Tensor

    def at(self, mask: torch.Tensor) -> _Answer:
        return _Answer(*(picked(one, mask) for one in (self.got, self.exact, self.own)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bounds:
    """The limits for an answer that needs no excuse."""

    precision: Precision
    tolerated: float
    may_use_tf32: bool

    def are_kept_by(self, answer: _Answer) -> bool:
        return self.is_close(answer, 0.0) and self.is_precise(answer)

    def is_close(self, answer: _Answer, known_error: float) -> bool:
        one = [answer.got], [answer.exact], [answer.own]
        return tolerance.find_mismatch(*one, self.tolerated, moved_errors=(known_error,)) is None

    def is_precise(self, answer: _Answer, *, in_median: bool = False) -> bool:
        error = errors.measure_error([answer.got], [answer.exact])
        usual = errors.measure_error([answer.own], [answer.exact])
        if in_median:
            error = replace(error, rms=0.0)
        if self.may_use_tf32:
            return max(error.rms, error.median) <= _TF32_FACTOR * max(usual.rms, _TF32_ROUNDOFF)
        return not errors.is_downgrade(error, usual, self.precision)

    def apart(self, got: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        """Return a mask of the elements that differ by more than the tolerance."""
        close = tolerance.wide(answer)
        scale = min(1.0, float(close.abs().square().mean().sqrt()))
        return ~((tolerance.wide(got) - close).abs() <= self.tolerated * (scale + close.abs()))


class _Doubt:
    """A gradient that is wrong in places. It is settled once gradients at moved inputs show that rounding
    decides there.
    """

    def __init__(self, answer: _Answer, number: int, bounds: _Bounds) -> None:
        self.number = number
        self._answer = answer
        self._bounds = bounds
        self._rms = errors.measure_error([answer.got], [answer.exact]).rms
        self._is_precise = bounds.is_precise(answer, in_median=True)
        self._unmet = bounds.apart(answer.got, answer.exact)
        self._most_unmet = _UNMET_SHARE * int(self._unmet.sum())
        self._may_be_met = bounds.is_precise(answer.at(~self._unmet))
        self._usual_rms = self._largest = 0.0

    def is_settled_by(self, other: torch.Tensor) -> bool:
        """Return whether the gradients up to `other` settle it."""
        return self._errs_no_more(other) or self._is_met(other)

    def _errs_no_more(self, other: torch.Tensor) -> bool:
        exact = [self._answer.exact]
        self._usual_rms = max(self._usual_rms, errors.measure_error([other], exact).rms)
        self._largest = max(self._largest, *tolerance.largest_errors([other], exact))
        if not self._is_precise or self._rms > min(_MOST_RMS, _RMS_FACTOR * self._usual_rms):
            return False
        return self._bounds.is_close(self._answer, self._largest)

    def _is_met(self, other: torch.Tensor) -> bool:
        if not self._may_be_met:
            return False
        self._unmet &= self._bounds.apart(self._answer.got, other)
        return int(self._unmet.sum()) <= self._most_unmet


def _near(reference: Reference, draw: Draw) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield answers to inputs that are moved as much as rounding moves them across a kink.

    Zeros among other values move by that share of the root mean square.
    """
    most = errors.rounding_of_kinks(reference.precision)
    while True:
        tensors = tuple(_off_zero(tensor, most) for tensor in draw.tensors)
        yield next(iter(reference.nearby(replace(draw, tensors=tensors), most)))


def _off_zero(tensor: torch.Tensor, most: float) -> torch.Tensor:
    """Return the tensor with its zeros moved, unless it is a mask or the like."""
    is_zero = tensor == 0
    if not bool(is_zero.any()) or not is_free(tensor[~is_zero]):
        return tensor
    step = most * tensor.abs().float().square().mean().sqrt()
    signed = torch.where(torch.rand(tensor.shape, device=tensor.device) < 0.5, step, -step)
    return torch.where(is_zero, signed.to(tensor.dtype), tensor)
