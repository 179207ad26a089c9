"""What a search has for its explorers and its evaluator to do, or why there is nothing."""

from __future__ import annotations

from dataclasses import dataclass

from kbopt.core.events import FULL_REPEAT
from kbopt.core.proposals import Candidate, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """There is nothing to propose until something in flight comes back."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The search is over; nothing is in flight."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck(Done):
    """Proposals fail one after the other. Nothing is in flight, and a search that is resumed goes on.

    `is_service` where services were to blame for the last one, and not what was asked or answered.
    """

    is_service: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A source to be evaluated now; `repeat` > 0 for one that was measured before.

    `is_full` where every baseline and KernelBench's verdict are wanted.
    """

    candidate: Candidate
    repeat: int

    @property
    def is_full(self) -> bool:
        return self.repeat == FULL_REPEAT


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryRequest:
    """Recommendations are wanted: from `trials`, the best and the newest failures, merged with `previous`."""

    trials: tuple[Trial, ...]
    previous: str
    memory_version: int
