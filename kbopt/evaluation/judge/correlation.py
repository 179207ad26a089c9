"""Tells from an answer's error on the task's own inputs that its products were in a lower precision.

Rounding the operands of products changes an answer in a way that follows from the inputs alone. Every kernel
that rounds them errs nearly alike, however it adds up the terms. So the judge regresses the candidate's error
on that of the reference in float64 with rounded operands. The coefficient is 1 for such a kernel and 0 for
fp32 and splits, also where the error is too small to be refused. A source cannot tell these inputs from
others, so that it cannot be precise where it is looked at alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kbopt.evaluation.judge.products import Rounding, rounded_exactly
from kbopt.evaluation.judge.reference import Draw, Output, Reference
from kbopt.evaluation.judge.steps import counts_in_steps

_MOST_ELEMENTS = 2**16
"""Elements of an output that are compared."""
_FEWEST_ELEMENTS = 64
"""Different elements of an output. With fewer, an error that follows the answer, as that of a fast
exponential does, could look like one that follows the operands."""
_LEAST_SHARE = 0.25
"""Coefficient from which on the error is that of the rounding. Rounding one of two operands makes 0.5."""
_LEAST_CORRELATION = 0.45
"""Correlation of the two errors. Elements of a row share errors, so that a small one may be chance."""
_IN_A_ROW = 4
"""Answers that show it one after the other, each to fresh inputs. In outputs of which only sixteen errors are
independent, one answer shows it by chance in one of thirty cases, and four in one of a million."""


class HiddenRounding:
    """Follows the error of a candidate's answers. `kinds` are the roundings that are looked for."""

    def __init__(self, reference: Reference, kinds: Sequence[Rounding]) -> None:
        self._reference = reference
        self._seen = dict.fromkeys(kinds, 0)

    @property
    def is_pending(self) -> bool:
        """Whether the last answer showed a rounding that too few answers have shown yet."""
        return any(self._seen.values())

    def found(self, draw: Draw, got: Sequence[torch.Tensor], own: Output, exact: Output) -> str:
        """Return the kind of rounding that the last answers show, `got` to `draw` among them; else "".

        Each call compares with one kind in turn, and with those that the answer before showed.
        """
        for number, (kind, times) in enumerate([*self._seen.items()]):
            if times or number == 0:
                del self._seen[kind]  # so that another one is the first of the next call
                shows = _shows(self._reference, kind, draw, got, own, exact)
                self._seen[kind] = times + 1 if shows else 0
                if self._seen[kind] >= _IN_A_ROW:
                    return kind.partition(" ")[0]
        return ""


def _shows(
    reference: Reference, kind: Rounding, draw: Draw, got: Sequence[torch.Tensor], own: Output, exact: Output
) -> bool:
    lower = rounded_exactly(reference, draw, kind)
    return lower is not None and any(
        follows(*answers)
        for answers in zip(got, lower.tensors, own.tensors, exact.tensors, strict=True)
        if answers[0].is_floating_point() and not counts_in_steps(answers[0])
    )


def can_show(reference: Reference, draw: Draw, own: Output, exact: Output, kind: Rounding) -> bool:
    """Return whether an answer whose products are rounded so shows it on the task's own inputs."""
    lower = rounded_exactly(reference, draw, kind)
    if lower is None:
        return False
    got = [one.to(like.dtype) for one, like in zip(lower.tensors, own.tensors, strict=True)]
    return _shows(reference, kind, draw, got, own, exact)


def follows(got: torch.Tensor, lower: torch.Tensor, own: torch.Tensor, exact: torch.Tensor) -> bool:
    """Return whether the error of `got` follows that of `lower`, if that is as large as that of `own`."""
    step = max(1, exact.numel() // _MOST_ELEMENTS)
    sampled = torch.stack([t.detach().flatten()[::step].double() for t in (exact, got, lower, own)])
    truth, *others = sampled[:, sampled.isfinite().all(0)]
    if truth.unique().numel() < _FEWEST_ELEMENTS:
        return False
    error, rounding, usual = (_without(one - truth, truth) for one in others)
    size = float(rounding.norm())
    if size == 0.0 or size < float(usual.norm()):
        return False
    along = float(error @ rounding) / size
    return along > _LEAST_SHARE * size and along > _LEAST_CORRELATION * float(error.norm())


def _without(values: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the values less their mean and less what is proportional to the centred answer: a constant and a
    factor may be in any two errors.
    """
    centred, values = truth - truth.mean(), values - values.mean()
    size = centred @ centred
    return values - centred * (centred @ values / size) if bool(size) else values
