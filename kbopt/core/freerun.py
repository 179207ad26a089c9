"""The asynchronous strategy: every free explorer gets a parent at once, every result counts at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from kbopt.core.epsilon_net import EpsilonNet
from kbopt.core.events import (
    Asked,
    Attempted,
    Dropped,
    Evaluated,
    Event,
    ProposalFailed,
    Proposed,
    RemeasureAsked,
)
from kbopt.core.memory import Memory
from kbopt.core.outcomes import Measured
from kbopt.core.proposals import Candidate, Trial
from kbopt.core.scoring import mean_score, score_interval
from kbopt.core.settings import SearchSettings
from kbopt.core.strategy import Choice
from kbopt.core.targets import reached

MAX_MEASUREMENTS = 4
"""How often one contender for the best is measured at most."""

NUM_CONTENDERS = 8
"""Among how many of the best contenders are looked for."""

EXEMPLAR_POOL = 16
"""Among how many of the best exemplars are looked for."""


class FreeRun:
    """PrioritySearch without steps, and the two baselines that differ in the choice of parents alone.

    The first `num_candidates` briefs have no parent: they ask for different first kernels where the
    original evaluated copies of one. Later briefs have none only while nothing has been measured.
    """

    def __init__(self, settings: SearchSettings, trials: Mapping[str, Trial], net: EpsilonNet | None) -> None:
        self._settings = settings
        self._trials = trials
        self._net = net
        self._memory = Memory(
            size=settings.memory_size,
            kind=settings.score_function,
            exploration=settings.exploration,
            ties=settings.ties,
        )
        self._asked = 0
        self._results = 0
        self._parents: dict[str, str] = {}
        self._origin: dict[str, str] = {}
        self._undecided: list[Candidate] = []
        self._remeasuring: set[str] = set()
        self.best: str | None = None
        self.num_first_kernels = 0

    def choose(self, seed: int) -> Choice | str:
        settings = self._settings
        if not settings.chooses_parents or not self._memory or self._asked < settings.num_candidates:
            return Choice(parent=None)
        if settings.algorithm == "random":
            return Choice(parent=self._memory.at_random(np.random.default_rng(seed)))
        parent = self._memory.choose(self._num_steps)
        return Choice(parent=parent, exemplars=self._exemplars(parent))

    def apply(self, event: Event) -> None:
        match event:
            case Asked():
                self._asked += 1
                if event.parent is not None:
                    self._parents[event.brief] = event.parent
                    self._memory.occupy(event.parent)
            case ProposalFailed():
                self._release(event.brief)
            case Attempted():
                parent = event.candidate.parent
                self._origin[event.candidate.id] = self._origin[parent] if parent else event.brief
            case Proposed():
                parent = event.candidate.parent
                self._origin[event.candidate.id] = self._origin[parent] if parent else event.candidate.id
                self._undecided.append(event.candidate)
            case Dropped():
                self._release(event.candidate)
                self._undecided = [c for c in self._undecided if c.id != event.candidate]
            case RemeasureAsked():
                self._remeasuring.add(event.candidate)
            case Evaluated():
                self._learn(event)

    def undecided(self) -> bool:
        return bool(self._undecided)

    def drops(self) -> Iterator[Dropped]:
        if self._net is None:
            return
        for candidate in self._undecided:
            near = self._net.nearest(candidate.source)
            if near:
                yield Dropped(candidate=candidate.id, neighbour=near.key, distance=near.distance)

    def admit(self) -> tuple[Candidate, ...]:
        admitted, self._undecided = tuple(self._undecided), []
        if self._net is not None:
            for candidate in admitted:
                self._net.insert(candidate)
        return admitted

    def remeasure(self, *, allowed: bool) -> RemeasureAsked | None:
        """Of the kernels whose intervals reach the best one's, the least measured, best first.

        The same source proposed twice is no contest: its result came from the cache. Before them, whatever
        the share of repeats, one that reached the target by a single measurement.
        """
        if self._remeasuring or self.best is None:
            return None
        leader = self._trials[self.best]
        floor, _ = score_interval(leader)
        if len(leader.results) == 1 and reached(leader, self._settings):
            return RemeasureAsked(candidate=self.best, repeat=1)
        if not allowed:
            return None
        reaching = [trial for trial in self.top(NUM_CONTENDERS) if score_interval(trial)[1] >= floor]
        contenders = list({trial.candidate.source: trial for trial in reversed(reaching)}.values())[::-1]
        if len(contenders) < 2:
            return None
        chosen = min(contenders, key=lambda trial: len(trial.results))
        if len(chosen.results) >= MAX_MEASUREMENTS or mean_score(chosen) <= 0.0:
            return None
        return RemeasureAsked(candidate=chosen.candidate.id, repeat=len(chosen.results))

    def top(self, k: int) -> tuple[Trial, ...]:
        return tuple(self._trials[key] for key in self._memory.top(k))

    @property
    def num_waiting(self) -> int:
        return 0

    @property
    def _num_steps(self) -> int:
        return self._results // (self._settings.num_candidates * self._settings.num_proposals)

    def _exemplars(self, parent: str) -> tuple[str, ...]:
        """Working kernels other than the parent, the best of each other origin first."""
        pool = [t.candidate for t in self.top(EXEMPLAR_POOL) if mean_score(t) > 0.0]
        seen = {self._trials[parent].candidate.source}
        origins = {self._origin[parent]}
        first: list[str] = []
        second: list[str] = []
        for candidate in pool:
            if candidate.source in seen:
                continue
            seen.add(candidate.source)
            (second if self._origin[candidate.id] in origins else first).append(candidate.id)
            origins.add(self._origin[candidate.id])
        return tuple((first + second)[: self._settings.num_exemplars])

    def _learn(self, event: Evaluated) -> None:
        self._results += 1
        trial = self._trials[event.candidate]
        if event.repeat == 0:
            self._release(event.candidate)
            net = self._net
            if net and event.candidate in net and not isinstance(event.result.outcome, Measured):
                net.mark_broken(event.candidate)
        else:
            self._remeasuring.discard(event.candidate)
        self._memory.put(
            event.candidate,
            order=_order(event.candidate),
            mean=mean_score(trial),
            count=len(trial.results),
            n_steps=self._num_steps,
        )
        leader = self._memory.top(1)[0]
        self.best = leader if mean_score(self._trials[leader]) > 0.0 else None

    def _release(self, brief: str) -> None:
        parent = self._parents.pop(brief, None)
        if parent is not None:
            self._memory.release(parent)


_MAX_ATTEMPTS = 10_000
"""Of one brief; only by their order an attempt must not come after its brief's answer."""


def _order(candidate: str) -> int:
    """Larger for newer briefs; of one brief, the attempts in their order and then the answer."""
    brief, _, attempt = candidate.partition("-")
    return int(brief[1:]) * _MAX_ATTEMPTS + int(attempt or _MAX_ATTEMPTS - 1)
