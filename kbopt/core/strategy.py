"""What the search decides next, as one protocol with two implementations.

`kbopt.core.freerun` never waits; `kbopt.core.stepwise` reproduces the original step by step. Both are
fed with events only. Their decisions become events as well, so a replay finds them already made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from kbopt.core.events import Dropped, Event, RemeasureAsked
from kbopt.core.proposals import Candidate, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Whom to improve, by candidate id (None: start afresh), and whose kernels to show beside it."""

    parent: str | None
    exemplars: tuple[str, ...] = ()


class Strategy(Protocol):
    """Who is improved next, which proposals are dropped, and who is measured again."""

    best: str | None
    """The id of the current answer."""

    num_first_kernels: int
    """Briefs that ask for what the original is given: they come on top of the steps' proposals."""

    def choose(self, seed: int) -> Choice | str:
        """The next brief's parent, or why there is none just now. Changes nothing."""
        ...

    def apply(self, event: Event) -> None:
        """Learn of an event. Called before any decision that depends on it."""
        ...

    def undecided(self) -> bool:
        """True when proposals wait for `drops` and `admit`."""
        ...

    def drops(self) -> Iterator[Dropped]:
        """Which of the undecided proposals are too close to what is known. Changes nothing."""
        ...

    @property
    def num_waiting(self) -> int:
        """Proposals that no decision is due on yet."""
        ...

    def admit(self) -> tuple[Candidate, ...]:
        """The undecided proposals that were not dropped; from here on they are known."""
        ...

    def remeasure(self, *, allowed: bool) -> RemeasureAsked | None:
        """The next measurement to repeat; `allowed` says whether the share of repeats permits it."""
        ...

    def top(self, k: int) -> tuple[Trial, ...]: ...
