"""The original PrioritySearch, step by step, for comparison: `--synchronous`.

Published as POLCA (arXiv 2603.14769) and, in Trace, as PrioritySearch. One step: every explored parent
is rewritten `num_proposals` times; the epsilon-net filters the whole batch; the survivors are evaluated
and pushed to the memory, then the parents; the `num_candidates` of highest priority are popped and
evaluated *again* for their feedback. Each of these phases is a barrier. The first step explores
`num_candidates` copies of the first kernel. Priorities are those at the time of the push.

Two things differ on purpose. The memory keeps the exact top k, not a prefix of the heap array. The
answer is not evaluated once more per step to be reported, which changes no choice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from kbopt.core.epsilon_net import EpsilonNet
from kbopt.core.events import (
    Asked,
    Dropped,
    Ended,
    Evaluated,
    Event,
    ProposalFailed,
    Proposed,
    Raised,
    RemeasureAsked,
)
from kbopt.core.memory import priority
from kbopt.core.proposals import Candidate, Trial
from kbopt.core.raising import raised
from kbopt.core.scoring import score
from kbopt.core.settings import SearchSettings
from kbopt.core.strategy import Choice


@dataclass(slots=True, eq=False)
class Copy:
    """A candidate as the original counts it: copies of the first kernel have scores of their own."""

    key: str
    order: int
    scores: list[float] = field(default_factory=list)
    priority: float = math.inf

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores)


class Stepwise:
    """The synchronous strategy. Explorers of one step may run side by side; steps never overlap."""

    def __init__(self, settings: SearchSettings, trials: Mapping[str, Trial], net: EpsilonNet | None) -> None:
        self._settings = settings
        self._trials = trials
        self._net = net
        self._memory: list[Copy] = []
        self._explored: list[Copy] = []
        self._survivors: list[Copy] = []
        self._batch: list[Candidate] = []
        self._to_ask: list[str] = []
        self._unanswered = 0
        self._closed = False
        self._to_measure: list[Copy] = []
        self._measuring: dict[tuple[str, int], Copy] = {}
        self._step = 0
        self._num_created = 0
        self._low, self._high = math.inf, 0.0
        self.best: str | None = None
        self.num_first_kernels = 0

    def choose(self, seed: int) -> Choice | str:
        del seed  # the original's choices are not random
        if not self._explored:
            return Choice(parent=None) if not self._unanswered else "the first kernel is being written"
        if self._measuring or self._to_measure:
            return "the step's kernels are being measured"
        if not self._to_ask:
            return "the step's other proposals are being written"
        return Choice(parent=self._to_ask[0])

    def apply(self, event: Event) -> None:
        match event:
            case Asked():
                self._unanswered += 1
                if event.parent is None:
                    self.num_first_kernels += 1
                else:
                    self._to_ask.pop(0)
            case ProposalFailed():
                self._unanswered -= 1
                if not self._proposing and not self._batch and self._explored:
                    self._finish_step()
            case Proposed():
                self._unanswered -= 1
                self._batch.append(event.candidate)
            case Dropped():
                self._batch = [c for c in self._batch if c.id != event.candidate]
                if not self._proposing and not self._batch:
                    self._finish_step()
            case RemeasureAsked():
                copy = next(c for c in self._to_measure if c.key == event.candidate)
                self._to_measure.remove(copy)
                self._measuring[event.candidate, event.repeat] = copy
            case Evaluated():
                self._learn(event)
            case Ended():
                self._closed = True
            case Raised():
                self._settings = raised(self._settings, event)
                self._closed = False
                if not self._explored:  # the last step was done
                    self._explore(self._settings.num_candidates)

    def undecided(self) -> bool:
        return bool(self._batch) and (self._closed or not self._proposing)

    def drops(self) -> Iterator[Dropped]:
        if self._net is None or not self._explored:
            return
        known = [copy.key for copy in self._memory + self._explored]
        for key, near in self._net.farthest_first(self._batch, list(dict.fromkeys(known))).items():
            yield Dropped(candidate=key, neighbour=near.key, distance=near.distance)

    def admit(self) -> tuple[Candidate, ...]:
        admitted, self._batch = tuple(self._batch), []
        copies = [self._copy(candidate.id) for candidate in admitted]
        for candidate, copy in zip(admitted, copies, strict=True):
            self._measuring[candidate.id, 0] = copy
            if self._net is not None:
                self._net.insert(candidate)
        if self._explored:
            self._survivors = copies
        elif copies:
            others = [self._copy(copies[0].key) for _ in range(self._settings.num_candidates - 1)]
            self._explored, self._to_measure = copies + others, others
        return admitted

    def remeasure(self, *, allowed: bool) -> RemeasureAsked | None:
        """The next explored parent to be evaluated again. The share of repeats does not apply here."""
        del allowed
        if not self._to_measure or self._closed:
            return None
        key = self._to_measure[0].key
        asked = [repeat for k, repeat in self._measuring if k == key]
        told = len(self._trials[key].results) if key in self._trials else 0
        return RemeasureAsked(candidate=key, repeat=told + len(asked))

    def top(self, k: int) -> tuple[Trial, ...]:
        copies = sorted(self._memory + self._explored, key=_by_mean, reverse=True)
        keys = dict.fromkeys(copy.key for copy in copies if copy.scores)
        return tuple(self._trials[key] for key in list(keys)[:k])

    @property
    def num_waiting(self) -> int:
        """Proposals that wait for the rest of their batch."""
        return len(self._batch)

    @property
    def _proposing(self) -> bool:
        return bool(self._to_ask or self._unanswered)

    def _learn(self, event: Evaluated) -> None:
        value = score(event.result.outcome)
        self._low, self._high = min(self._low, value), max(self._high, value)
        copy = self._measuring.pop((event.candidate, event.repeat))
        copy.scores.append(value)
        if self._measuring or self._to_measure:
            return
        if self._survivors:
            self._finish_step()
        else:
            self._start_proposing()

    def _start_proposing(self) -> None:
        if self._step == 0:
            self._answer(self._explored)
        self._to_ask = [copy.key for copy in self._explored] * self._settings.num_proposals

    def _finish_step(self) -> None:
        """Push the survivors and the parents, take the best, pop whom to explore next."""
        self._step += not self._to_ask  # else the search ended within the step, which counts no further
        for copy in self._survivors + self._explored:
            copy.priority = self._priority(copy)
            self._memory.append(copy)
        self._survivors = []
        self._memory.sort(key=self._by_priority, reverse=True)
        del self._memory[self._settings.memory_size :]
        self._answer(self._memory)
        last = self._step == self._settings.num_steps
        self._explore(0 if last else self._settings.num_candidates)

    def _explore(self, num: int) -> None:
        self._explored, self._memory = self._memory[:num], self._memory[num:]
        self._to_measure = list(self._explored)

    def _answer(self, copies: list[Copy]) -> None:
        best = max(copies, key=_by_mean)
        self.best = best.key if best.mean > 0.0 else None

    def _priority(self, copy: Copy) -> float:
        width = self._settings.exploration * math.sqrt(math.log(self._step + 2)) * (self._high - self._low)
        values = priority(
            self._settings.score_function,
            np.array([copy.mean]),
            np.array([float(len(copy.scores))]),
            width=width,
            low=self._low,
            high=self._high,
        )
        return float(values[0])

    def _by_priority(self, copy: Copy) -> tuple[float, int]:
        return copy.priority, copy.order if self._settings.ties == "newest" else -copy.order

    def _copy(self, key: str) -> Copy:
        self._num_created += 1
        return Copy(key, self._num_created)


def _by_mean(copy: Copy) -> tuple[float, int]:
    return (copy.mean if copy.scores else -1.0, copy.order)
