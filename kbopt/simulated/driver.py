"""A whole search in virtual time: explorers, one evaluator, no sleeping. Thousands run in a minute."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass

from kbopt.core.evaluations import EvalRequest, Result
from kbopt.core.events import FINAL_REPEAT, Event
from kbopt.core.pacing import InFlightLimit
from kbopt.core.proposals import Brief, Candidate
from kbopt.core.protocol import EvalProtocol
from kbopt.core.search import Search
from kbopt.core.settings import SearchSettings
from kbopt.core.tally import Progress
from kbopt.core.work import Done, Ready, Wait
from kbopt.simulated.backend import judge
from kbopt.simulated.kernels import to_point
from kbopt.simulated.landscapes import Landscape
from kbopt.simulated.proposer import Latency, SimulatedProposer


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationReport:
    """What came of one simulated search.

    `quality` has the true speedup of the answer after every evaluation: `quality[n - 1]` is what the
    search would have returned had it been stopped after n. `busy_share` is the share of the time from the
    first evaluation's start to the last brief in which the evaluator worked. `answer` is the best id.
    """

    progress: Progress
    answer: str | None
    quality: tuple[float, ...]
    busy_share: float
    seconds: float
    events: tuple[Event, ...]

    @property
    def final(self) -> float:
        """The true speedup of the answer, 0.0 if nothing worked."""
        return self.quality[-1] if self.quality else 0.0


class ListJournal:
    """A journal in memory, for simulations and tests."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def append(self, event: Event) -> None:
        self.events.append(event)


def simulate(
    settings: SearchSettings,
    landscape: Landscape,
    *,
    explorers: int = 1,
    proposal_latency: Latency | None = None,
    evaluation_s: float = 1.0,
    proposer: SimulatedProposer | None = None,
    pacing: InFlightLimit | None = None,
) -> SimulationReport:
    """Run one search to its end; explorers pause while `pacing.limit` briefs and candidates are in flight.

    A source that was measured before is answered from the cache when its turn comes, in no time.
    """
    proposer = proposer or SimulatedProposer(latency=proposal_latency)
    return _Simulation(
        settings,
        landscape,
        explorers,
        proposer,
        evaluation_s,
        pacing or InFlightLimit(largest=settings.max_in_flight),
    ).run()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evaluation:
    """When the evaluator worked; virtual seconds."""

    start: float
    end: float


class _Simulation:
    def __init__(
        self,
        settings: SearchSettings,
        landscape: Landscape,
        explorers: int,
        proposer: SimulatedProposer,
        evaluation_s: float,
        pacing: InFlightLimit,
    ) -> None:
        self._landscape = landscape
        self._proposer = proposer
        self._evaluation_s = evaluation_s
        self._pacing = pacing
        self._synchronous = settings.synchronous
        self._journal = ListJournal()
        self._search = Search(task=landscape.task, settings=settings, journal=self._journal)
        self._idle_explorers = explorers
        self._now = 0.0
        self._agenda: list[tuple[float, int, Brief | Ready]] = []
        self._tie = itertools.count()
        self._queue: deque[Ready] = deque()
        self._evaluating: _Evaluation | None = None
        self._cache: dict[str, Result] = {}
        self._quality: list[float] = []
        self._evaluations: list[_Evaluation] = []
        self._last_brief_at = 0.0

    def run(self) -> SimulationReport:
        self._start_work()
        while self._agenda:
            self._now, _, item = heapq.heappop(self._agenda)
            if isinstance(item, Brief):
                self._answer(item)
            else:
                self._measured(item)
            self._start_work()
        best = self._search.best
        return SimulationReport(
            progress=self._search.progress,
            answer=best.candidate.id if best else None,
            quality=tuple(self._quality),
            busy_share=self._busy_share(),
            seconds=self._now,
            events=tuple(self._journal.events),
        )

    def _start_work(self) -> None:
        self._feed_evaluator()
        while self._idle_explorers and not self._full():
            asked = self._search.ask(elapsed_s=self._now)
            if isinstance(asked, Wait | Done):
                break
            self._idle_explorers -= 1
            self._last_brief_at = self._now
            self._schedule(self._proposer.latency_s(asked), asked)
        self._feed_evaluator()

    def _feed_evaluator(self) -> None:
        self._queue.extend(self._search.take_ready())
        if self._evaluating is None and self._queue:
            ready = self._queue.popleft()
            service_s = 0.0 if self._cached(ready) else self._evaluation_s
            self._evaluating = _Evaluation(start=self._now, end=self._now + service_s)
            self._schedule(service_s, ready)

    def _full(self) -> bool:
        return not self._synchronous and self._search.num_in_flight >= self._pacing.limit

    def _answer(self, brief: Brief) -> None:
        self._idle_explorers += 1
        answer = self._proposer.answer(brief)
        if isinstance(answer, Candidate):
            self._search.propose(answer)
        else:
            self._search.fail(brief.id, answer)

    def _measured(self, ready: Ready) -> None:
        assert self._evaluating is not None
        evaluation, self._evaluating = self._evaluating, None
        key, source = ready.candidate.id, ready.candidate.source
        if self._cached(ready):
            self._search.tell(key, self._cache[source], repeat=ready.repeat, cached=True)
            return
        request = EvalRequest(
            task=self._landscape.task, source=source, protocol=EvalProtocol(), repeat=ready.repeat
        )
        result = judge(request, service_s=self._evaluation_s)
        if ready.repeat >= FINAL_REPEAT:
            self._search.tell(key, result, repeat=ready.repeat)
            return
        in_flight = self._search.num_in_flight
        self._cache.setdefault(source, result)
        self._search.tell(key, result, repeat=ready.repeat)
        self._quality.append(self._true_quality())
        self._evaluations.append(evaluation)
        self._pacing.observe(in_flight=in_flight, waiting=len(self._queue), dry=not self._queue)

    def _cached(self, ready: Ready) -> bool:
        return ready.repeat == 0 and ready.candidate.source in self._cache

    def _true_quality(self) -> float:
        best = self._search.best
        point = to_point(best.candidate.source) if best else None
        return self._landscape.speedup(point) if point else 0.0

    def _busy_share(self) -> float:
        """From the first evaluation's start to the last brief: neither the start nor the end counts."""
        if not self._evaluations:
            return 0.0
        start, stop = self._evaluations[0].start, self._last_brief_at
        busy = sum(max(0.0, min(e.end, stop) - e.start) for e in self._evaluations)
        return busy / (stop - start) if stop > start else 1.0

    def _schedule(self, after_s: float, item: Brief | Ready) -> None:
        heapq.heappush(self._agenda, (self._now + after_s, next(self._tie), item))
