"""What happens in a search, as the journal keeps it. Replaying the events rebuilds the search.

An event is journalled before the search acts on it, so whatever the search knows is on disk.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from kbopt.core.costs import Rent, Usage
from kbopt.core.evaluations import Result
from kbopt.core.kernel_strategies import Bound
from kbopt.core.proposals import Blame, Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A process began to work on the search; `session` counts from 1, above 1 after a resume.

    The time between an `Opened` and the entry before it is not the search's time.
    """

    session: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A brief was handed out. Enough to hand out the same brief again after a crash.

    `exemplars` are candidate ids, best first; `summary_version` counts `Summarized` events so far. `strategy`
    names the one that a first kernel is asked for by.
    """

    brief: str
    parent: str | None
    exemplars: tuple[str, ...]
    summary_version: int
    seed: int
    memory_version: int
    action: Literal["propose", "refine"] = "propose"
    strategy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskProfiled:
    """What limits the task's reference, most telling first, by which first briefs choose their strategies.

    Empty where there was no profile to be had.
    """

    bounds: tuple[Bound, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """A brief was answered with a source. It is evaluated next unless `Dropped` follows."""

    candidate: Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """Whoever answers `brief` had a source judged on the way. It is evaluated next, and no proposal.

    The candidate's id is the brief's with a number, `c000003-2`, and its parent the brief's.
    """

    brief: str
    candidate: Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateProfiled:
    """An agent asked what limits `candidate`. `outcome` is what it was told in a line, or why there was no
    profile.
    """

    candidate: str
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """The epsilon-net found `candidate` within `epsilon` of `neighbour`: it is not evaluated."""

    candidate: str
    neighbour: str
    distance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalFailed:
    """A brief was answered with nothing. It counts as a proposal and against the money spent."""

    brief: str
    reason: str
    usage: tuple[Usage, ...] = ()
    blame: Blame = "brief"


FINAL_REPEAT = 1000
"""From here on `repeat` counts the final measurements, which are made after the search's end."""

FULL_REPEAT = 2000
"""The `repeat` of the last evaluation: the winner's, with every baseline and KernelBench's verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemeasureAsked:
    """`candidate` contends for the best and is measured again; `repeat` counts from 1.

    After `Ended` it counts from `FINAL_REPEAT`: those measurements alone name the winner, which is then asked
    for once more with `FULL_REPEAT`. That one, too, `is_final`; it changes nobody's speedup.
    """

    candidate: str
    repeat: int

    @property
    def is_final(self) -> bool:
        return self.repeat >= FINAL_REPEAT

    @property
    def is_full(self) -> bool:
        return self.repeat == FULL_REPEAT


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """The evaluator answered for `candidate`. `cached` results cost no evaluation, nor do final ones."""

    candidate: str
    result: Result
    repeat: int = 0
    cached: bool = False

    @property
    def is_final(self) -> bool:
        return self.repeat >= FINAL_REPEAT

    @property
    def is_full(self) -> bool:
        return self.repeat == FULL_REPEAT


@dataclass(frozen=True, slots=True, kw_only=True)
class FullForgone:
    """The winner's full evaluation cannot be made, for `reason`: it wins without one."""

    candidate: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summarized:
    """Recommendations from the memory as it was at `memory_version`; they replace the previous ones."""

    text: str
    memory_version: int
    usage: tuple[Usage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStarted:
    """A worker process or container answered for the first time. `cold` if it was started for this run."""

    boot: str
    device: str
    cold: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rented:
    """A rented device was held for this search since its last `Rented`; counts as money spent."""

    rent: Rent


@dataclass(frozen=True, slots=True, kw_only=True)
class InfraFailed:
    """A machine or service failed and the work was tried again; `attempt` counts from 1."""

    what: str
    reason: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """The sweep gave the search more `evaluations` and `usd` of what all of its searches share."""

    evaluations: int = 0
    usd: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The search stopped asking: `reason` says which budget or target was reached, or who stopped it.

    `answer` is the candidate that an agent handed in as its answer, empty where the fastest one is.
    """

    reason: str
    answer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """The user raised limits of the search: it goes on, and an `Ended` before it counts no longer, nor do the
    measurements that were made after that one.

    Each is the new limit in all, None where it stays. `evaluations` and `usd` of a budget that grows are what
    each search of the sweep has on average. The time between a `Raised` and the entry before it is not the
    search's time.
    """

    num_steps: int | None = None
    evaluations: int | None = None
    usd: float | None = None
    tokens: int | None = None
    minutes: float | None = None


Event = (
    Opened
    | TaskProfiled
    | Asked
    | Attempted
    | Proposed
    | CandidateProfiled
    | Dropped
    | ProposalFailed
    | RemeasureAsked
    | Evaluated
    | FullForgone
    | Summarized
    | BackendStarted
    | Rented
    | InfraFailed
    | Granted
    | Ended
    | Raised
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An event in a journal: `number` counts from 1 without gaps, `time` is in Unix seconds."""

    number: int
    time: float
    event: Event


def active_s(entries: Sequence[Entry]) -> float:
    """Seconds that the search was worked on: gaps that end in an `Opened` or a `Raised` are not counted."""
    pairs = itertools.pairwise(entries)
    return sum(
        after.time - before.time for before, after in pairs if not isinstance(after.event, Opened | Raised)
    )


def has_ended(events: Iterable[Event]) -> bool:
    """Whether the search is over: it ended, and no limit was raised since."""
    ends = [event for event in events if isinstance(event, Ended | Raised)]
    return bool(ends) and isinstance(ends[-1], Ended)
