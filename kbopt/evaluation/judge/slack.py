"""How far an element may be off because the reference is off itself, by the element's size.

The reference usually errs most on its largest elements. If these are far larger than the others, their error
excuses too much: the rounding of an exponential of 1e6 would excuse zeros for all elements below one. So an
element is held to the reference's errors on elements that are no larger. In fp16 and bf16 the largest error
counts: the reference rounds a sum whose terms cancel once, and an honest kernel that rounds its parts errs
more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

OWN_ERROR_FACTOR = 16.0
"""An element may be off by this many times the reference's largest error: one level of Strassen's algorithm
costs six. `errors.is_downgrade` finds what is systematically less precise than the reference."""
_LOCAL_FACTOR = 64.0
"""And by no more than this many times the largest error of elements that are no larger. The factor is wider,
because fewer elements show that error."""
_FEWEST = 256
"""Elements that show an error at least."""
_SHARED = 0.5
"""Share of the elements, the smallest ones, that are held to one error."""
_EXPONENTS = 128
"""Powers of two that are told apart, around one. Elements beyond them count with the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slack:
    """`most` is what any element may be off, and `local` what one of each power of two may be, if known.

    Every element may be off by `moved`.
    """

    most: float
    moved: float = 0.0
    local: torch.Tensor | None = None

    def at(self, size: torch.Tensor) -> torch.Tensor | float:
        """Return how far elements of these sizes may be off."""
        if self.local is None:
            return max(self.most, self.moved)
        return self.local[_exponent(size)].clamp(max=self.most).clamp_(min=self.moved)


def local_slack(distances_and_sizes: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor | None:
    """Return the slack of each power of two, from pieces of the reference's distances from float64 and of the
    elements' sizes there. None if there are too few elements that are finite.
    """
    largest = counts = None
    for distance, size in distances_and_sizes:
        usable = torch.isfinite(distance) & torch.isfinite(size)
        exponent = _exponent(size[usable])
        if largest is None or counts is None:
            largest = distance.new_zeros(_EXPONENTS)
            counts = exponent.new_zeros(_EXPONENTS)
        largest.scatter_reduce_(0, exponent, distance[usable], "amax")
        counts += torch.bincount(exponent, minlength=_EXPONENTS)
    total = 0 if counts is None else int(counts.sum())
    if largest is None or counts is None or total < _FEWEST:
        return None
    so_far = largest.cummax(0).values
    first = int((counts.cumsum(0) >= _SHARED * total).int().argmax())
    so_far[:first] = so_far[first].clone()
    return _LOCAL_FACTOR * so_far


def _exponent(size: torch.Tensor) -> torch.Tensor:
    """Return the place of each element among the powers of two. Zero is the smallest."""
    exponent = torch.frexp(size).exponent.long() + _EXPONENTS // 2
    return torch.where(size > 0, exponent, 0).clamp_(0, _EXPONENTS - 1)
