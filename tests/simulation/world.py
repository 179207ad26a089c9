"""A search at the mercy of chance: explorers and an evaluator that answer in any order, twice, or not."""

from __future__ import annotations

import random

from kbopt.core.costs import Usage
from kbopt.core.evaluations import EvalRequest
from kbopt.core.proposals import Brief, Candidate, NoProposal
from kbopt.core.protocol import EvalProtocol
from kbopt.core.search import Search
from kbopt.core.settings import SearchSettings
from kbopt.core.work import Done, Ready, Wait
from kbopt.simulated import Landscape, ListJournal, SimulatedProposer
from kbopt.simulated.backend import judge

USAGE = Usage(model="simulated", prompt_tokens=60, completion_tokens=40, usd=0.01)


class World:
    """Drives one search by random moves; `seed` fixes them all."""

    def __init__(self, settings: SearchSettings, landscape: Landscape, *, seed: int, explorers: int = 4):
        self.settings = settings
        self.landscape = landscape
        self.rng = random.Random(seed)
        self.explorers = explorers
        self.journal = ListJournal()
        self.search = self.new_search(self.journal)
        self.proposer = SimulatedProposer(failure_rate=0.1, usd=0.01, tokens=100)
        self.briefs: list[Brief] = []
        self.measuring: list[Ready] = []
        self.taken: list[tuple[str, int]] = []
        self.answered: list[Candidate] = []
        self.told: list[Ready] = []
        self.stopped: Done | None = None

    def new_search(self, journal: ListJournal) -> Search:
        return Search(task=self.landscape.task, settings=self.settings, journal=journal)

    def move(self) -> None:
        """One random call on the search."""
        moves = [self.ask, self.take, self.repeat_an_answer, self.summarize]
        moves += [self.answer] * 2 if self.briefs else []
        moves += [self.tell] * 2 if self.measuring else []
        self.rng.choice(moves)()

    def run(self, limit: int = 5000) -> World:
        for _ in range(limit):
            if self.stopped:
                return self
            self.move()
        raise AssertionError(f"no end after {limit} moves: {self.search.progress}")

    def ask(self) -> None:
        if len(self.briefs) == self.explorers:
            return
        asked = self.search.ask()
        if isinstance(asked, Done):
            self.stopped = asked
        elif isinstance(asked, Wait):
            assert self.briefs or self.measuring or self.search.progress.in_flight
        else:
            self.briefs.append(asked)

    def answer(self) -> None:
        brief = self.briefs.pop(self.rng.randrange(len(self.briefs)))
        answer = self.proposer.answer(brief)
        if isinstance(answer, NoProposal):
            self.search.fail(brief.id, answer)
        else:
            self.answered.append(answer)
            self.search.propose(answer)

    def take(self) -> None:
        ready = self.search.take_ready()
        self.measuring += ready
        self.taken += [(item.candidate.id, item.repeat) for item in ready]

    def tell(self) -> None:
        ready = self.measuring.pop(self.rng.randrange(len(self.measuring)))
        self.told.append(ready)
        self._tell(ready)

    def repeat_an_answer(self) -> None:
        """Say again what was said before; it must change nothing."""
        before = len(self.journal.events)
        if self.answered and self.rng.random() < 0.5:
            self.search.propose(self.rng.choice(self.answered))
        elif self.told:
            self._tell(self.rng.choice(self.told))
        assert len(self.journal.events) == before

    def summarize(self) -> None:
        if (request := self.search.summary_due()) is not None:
            self.search.summarized(f"{len(request.trials)} trials; {request.previous}"[:80], (USAGE,))

    def _tell(self, ready: Ready) -> None:
        request = EvalRequest(
            task=self.landscape.task,
            source=ready.candidate.source,
            protocol=EvalProtocol(),
            repeat=ready.repeat,
        )
        self.search.tell(
            ready.candidate.id,
            judge(request),
            repeat=ready.repeat,
            cached=ready.repeat == 0 and int(ready.candidate.id[1:]) % 7 == 0,
        )
