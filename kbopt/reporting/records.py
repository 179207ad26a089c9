"""What a history holds: one node per proposal, bars of the time line, points of the curve, what was paid."""

from __future__ import annotations

from dataclasses import dataclass

from kbopt.core.costs import Usage
from kbopt.core.evaluations import Result
from kbopt.core.events import Dropped, Raised
from kbopt.core.outcomes import outcome_name
from kbopt.core.proposals import Candidate, Trial


@dataclass(slots=True)
class Node:
    """One proposal: the `index`-th answer, to the `order`-th brief.

    `minutes` are on the search's own clock, without the time between sessions. `strategy` names the one that
    a model or an agent was asked for, if any.

    `changed` is the number of the last entry that changed it, `evaluations` the search's count at its last
    result. `seed` is the seed kernel that its source grew from, `source_key` equal for equal sources.
    `results` holds every measurement, oldest first; the last `num_finals` came after the end: `judged` are
    those that name its speedup, and `full` is the winner's full evaluation, as in a `Trial`. `profiles` are
    what agents were told when they asked what limits it, oldest first. `has_texts` is False once source,
    feedback and log were let go to bound the memory.
    """

    candidate: Candidate
    index: int
    order: int
    minutes: float
    action: str
    strategy: str
    exemplars: tuple[str, ...]
    tunables: tuple[tuple[str, str], ...]
    seed: str
    source_key: int
    changed: int
    results: tuple[Result, ...] = ()
    num_finals: int = 0
    full: Result | None = None
    why_no_full: str = ""
    profiles: tuple[str, ...] = ()
    evaluations: int = 0
    staleness: int | None = None
    dropped: Dropped | None = None
    has_texts: bool = True
    speedup: float | None = None
    ci: tuple[float, float] | None = None

    @property
    def trial(self) -> Trial:
        return Trial(
            candidate=self.candidate,
            results=self.results,
            num_finals=self.num_finals,
            full=self.full,
            why_no_full=self.why_no_full,
        )

    @property
    def judged(self) -> tuple[Result, ...]:
        return self.trial.judged

    @property
    def status(self) -> str:
        """The outcome's name, `dropped` by the epsilon-net, or `pending`."""
        if self.results:
            return outcome_name(self.results[-1].outcome)
        return "dropped" if self.dropped else "pending"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One piece of work on the time line; both ends in minutes on the search's own clock."""

    group: str
    stage: str
    candidate: str
    start: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressPoint:
    """The best trial right after an evaluation: `usd` and `minutes` are totals up to it."""

    evaluations: int
    minutes: float
    usd: float
    speedup: float
    ci: tuple[float, float]
    candidate: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """A summary of the memory, as it replaced the one before it."""

    minutes: float
    memory_version: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A failure that is not a kernel's: of a machine, a service, or a proposer with nothing to offer."""

    minutes: float
    what: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RaisedAt:
    """Limits that the user raised: at which Unix time, and after how much of the search's own."""

    time: float
    minutes: float
    limits: Raised


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpend:
    """What one model was paid for. `unpriced_requests` have no known price and are not in `usd`."""

    model: str
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    unpriced_requests: int = 0
    seconds: float = 0.0

    def plus(self, usage: Usage) -> ModelSpend:
        return ModelSpend(
            model=self.model,
            requests=self.requests + usage.requests,
            prompt_tokens=self.prompt_tokens + usage.prompt_tokens,
            completion_tokens=self.completion_tokens + usage.completion_tokens,
            usd=self.usd + (usage.usd or 0.0),
            unpriced_requests=self.unpriced_requests + (usage.requests if usage.usd is None else 0),
            seconds=self.seconds + usage.seconds,
        )
