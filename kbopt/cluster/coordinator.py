"""The coordinator: owns the searches of a sweep and their journals.

Explorers lease briefs and hand in candidates; the coordinator sends ready candidates to the evaluator
and tells the search what came back. Explorers never wait for an evaluation, and whatever has been
handed in survives every actor: it is in the journal before anything is done with it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from kbopt.cluster.messages import (
    Answer,
    CoordinatorStatus,
    EvaluatorStatus,
    Factories,
    Failure,
    Idle,
    Lease,
    SearchSpec,
    SearchStatus,
)
from kbopt.core.errors import InfraError, UserError
from kbopt.core.events import BackendStarted, Entry, Evaluated, Opened
from kbopt.core.pacing import InFlightLimit
from kbopt.core.search import Ready, Search, SummaryRequest
from kbopt.core.types import Brief, Candidate, EvalRequest, Measured, NoProposal, Rent, Usage
from kbopt.store.journal import SqliteJournal

LEASE_S = 1800.0
"""After this long a brief counts as lost with its explorer and is handed out again."""

POLL_S = 5.0
"""How long a lease request waits for work before it returns empty-handed."""

Evaluate = Callable[[str, EvalRequest], Awaitable[Answer]]
"""(search, request) -> answer; raises `InfraError` or `UserError`."""


@dataclass(frozen=True, slots=True)
class _Held:
    explorer: str
    until: float


class RunningSearch:
    """One search with its journal, its clock and the work that is out."""

    def __init__(self, spec: SearchSpec, factories: Factories) -> None:
        self.spec = spec
        self.journal = SqliteJournal(spec.journal)
        embedder = factories.embedder(spec) if spec.settings.uses_epsilon_net else None
        self.search = Search(task=spec.task, settings=spec.settings, journal=self.journal, embedder=embedder)
        entries = list(self.journal.entries())
        self.search.replay(entry.event for entry in entries)
        self.failure: Failure | None = None
        self.held: dict[str, _Held] = {}
        self.summary: SummaryRequest | None = None
        self.summary_held: _Held | None = None
        self.evaluating = 0
        self.pacing = InFlightLimit()
        self.device_s = sum(_device_s(entry) for entry in entries)
        self._boots = {e.event.boot for e in entries if isinstance(e.event, BackendStarted)}
        self._previous_s = active_s(entries)
        self._opened_at = time.monotonic()
        session = 1 + sum(isinstance(entry.event, Opened) for entry in entries)
        if self.running:
            self.journal.append(Opened(session=session))

    @property
    def running(self) -> bool:
        return self.failure is None and self.search.ended is None

    @property
    def elapsed_s(self) -> float:
        return self._previous_s + time.monotonic() - self._opened_at

    def lease(self, explorer: str) -> Brief | SummaryRequest | None:
        """Work for `explorer`, or None while the search waits for results."""
        held = _Held(explorer, time.monotonic() + LEASE_S)
        self.summary = self.summary or self.search.summary_due()
        if self.summary and _is_over(self.summary_held):
            self.summary_held = held
            return self.summary
        for brief in self.search.outstanding():
            if _is_over(self.held.get(brief.id)):
                self.held[brief.id] = held
                return brief
        synchronous = self.spec.settings.synchronous  # its barriers are pauses enough
        if not synchronous and self.search.num_in_flight >= self.pacing.limit:
            return None
        asked = self.search.ask(elapsed_s=self.elapsed_s)
        if not isinstance(asked, Brief):
            return None
        self.held[asked.id] = held
        return asked

    def release(self, explorer: str) -> None:
        """Forget what `explorer` held; it is handed out again."""
        self.held = {brief: held for brief, held in self.held.items() if held.explorer != explorer}
        if self.summary_held and self.summary_held.explorer == explorer:
            self.summary_held = None

    def saw_boot(self, boot: str, device: str, *, cold: bool) -> None:
        if boot not in self._boots:
            self._boots.add(boot)
            self.journal.append(BackendStarted(boot=boot, device=device, cold=cold))

    def status(self) -> SearchStatus:
        best = self.search.best
        measured = best.results[-1].outcome if best else None
        return SearchStatus(
            name=self.spec.name,
            task=self.spec.task.name,
            algorithm=self.spec.settings.algorithm,
            seed=self.spec.settings.seed,
            progress=self.search.progress,
            elapsed_s=self.elapsed_s,
            device_s=self.device_s,
            best_speedup=measured.speedup if isinstance(measured, Measured) else None,
            best_ci=measured.speedup_ci if isinstance(measured, Measured) else None,
            ended=self.search.ended,
            failure=self.failure,
        )


class Coordinator:
    """All searches of a sweep, over one evaluator. Their journals exist; what they hold is gone on with.

    Plain asyncio; `kbopt.cluster.actors` makes it a Ray actor.
    """

    def __init__(
        self,
        specs: tuple[SearchSpec, ...],
        factories: Factories,
        evaluate: Evaluate,
        evaluator_status: Callable[[], Awaitable[EvaluatorStatus | None]],
        take_rent: Callable[[], Awaitable[Rent | None]],
        *,
        parallel_searches: int,
        stop_file: Path | None = None,
    ) -> None:
        self._stop_file = stop_file
        self._searches = {spec.name: RunningSearch(spec, factories) for spec in specs}
        self._latest: tuple[RunningSearch, ...] = ()
        self._evaluate = evaluate
        self._evaluator_status = evaluator_status
        self._take_rent = take_rent
        self._parallel_searches = parallel_searches
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._turn = itertools.count()
        self._incarnations: dict[int, str] = {}

    async def lease(self, index: int, incarnation: str) -> Lease | Idle:
        """Work for explorer `index`; `Idle` if there was none for `POLL_S`.

        A new incarnation of the same explorer frees what the old one held.
        """
        former = self._incarnations.get(index, incarnation)
        self._incarnations[index] = incarnation
        for running in self._searches.values():
            if former != incarnation:
                running.release(former)
            self._advance(running)
        deadline = time.monotonic() + POLL_S
        while not self.finished:
            self._changed.clear()
            for running in self._in_turn():
                try:
                    work = running.lease(incarnation)
                except InfraError as error:
                    self._fail(running, error)
                    continue
                self._advance(running)  # asking may have released what waited for the step's end
                if work is not None:
                    return Lease(search=running.spec.name, work=work)
            remaining_s = deadline - time.monotonic()
            if self.finished or remaining_s <= 0:
                break
            try:
                await asyncio.wait_for(self._changed.wait(), min(remaining_s, 1.0))
            except TimeoutError:
                continue
        return Idle(finished=self.finished)

    async def submit(self, search: str, candidate: Candidate) -> None:
        """A brief's answer. Journalled before this returns; a late duplicate is dropped."""
        running = self._searches[search]
        running.held.pop(candidate.id, None)
        self._guarded(running, lambda: running.search.propose(candidate))

    async def decline(self, search: str, brief: str, answer: NoProposal) -> None:
        """A brief that got no candidate."""
        running = self._searches[search]
        running.held.pop(brief, None)
        self._guarded(running, lambda: running.search.fail(brief, answer))

    async def summarized(self, search: str, text: str, usage: tuple[Usage, ...]) -> None:
        running = self._searches[search]
        if running.summary is not None:  # else a late duplicate of an explorer that was thought lost
            running.summary = running.summary_held = None
            self._guarded(running, lambda: running.search.summarized(text, usage))

    async def gave_up(self, search: str, failure: Failure) -> None:
        """An explorer cannot serve this search any more, for example because every model is down."""
        running = self._searches[search]
        running.failure = running.failure or failure
        self._changed.set()

    async def status(self) -> CoordinatorStatus:
        return CoordinatorStatus(
            searches=tuple(running.status() for running in self._searches.values()),
            explorers=len(self._incarnations),
            finished=self.finished,
            stopped=self.stopped,
        )

    async def stop(self, reason: str, *, end: bool) -> None:
        """Stop all work. With `end` the searches are over; without, `kbopt resume` goes on with them."""
        # A search that was over long ago would seem to have gone on until now if it paid.
        searches = tuple(self._searches.values())
        payers = tuple(running for running in searches if running.running) or self._latest or searches
        for running in self._searches.values():
            if running.running and end:
                running.search.end(reason)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if rent := await self._take_rent():
            for running in payers:
                running.search.pay_rent(rent.share(len(payers)))
        for running in self._searches.values():
            running.journal.close()

    @property
    def stopped(self) -> bool:
        """The user asked for a stop by creating the stop file; whoever resumes the sweep removes it."""
        return self._stop_file is not None and self._stop_file.exists()

    @property
    def finished(self) -> bool:
        return self.stopped or not any(running.running for running in self._searches.values())

    def _in_turn(self) -> list[RunningSearch]:
        """The searches under way, beginning with another one each time."""
        active = list(
            itertools.islice((s for s in self._searches.values() if s.running), self._parallel_searches)
        )
        first = next(self._turn) % len(active) if active else 0
        return active[first:] + active[:first]

    def _guarded(self, running: RunningSearch, change: Callable[[], None]) -> None:
        if not running.running:
            return
        try:
            change()
        except InfraError as error:
            self._fail(running, error)
        self._advance(running)
        self._changed.set()

    def _advance(self, running: RunningSearch) -> None:
        """Send what is ready to the evaluator."""
        if not running.running:
            return
        try:
            ready = running.search.take_ready()
        except InfraError as error:
            self._fail(running, error)
            return
        for one in ready:
            running.evaluating += 1
            task = asyncio.get_running_loop().create_task(self._measure(running, one))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _measure(self, running: RunningSearch, ready: Ready) -> None:
        spec = running.spec
        request = EvalRequest(
            task=spec.task, source=ready.candidate.source, protocol=spec.protocol, repeat=ready.repeat
        )
        try:
            answer = await self._evaluate(spec.name, request)
            status = await self._evaluator_status()
            self._tell(running, ready, answer, status)
        except (InfraError, UserError) as error:
            self._fail(running, error)
        finally:
            running.evaluating -= 1
        self._advance(running)
        self._changed.set()

    def _tell(
        self, running: RunningSearch, ready: Ready, answer: Answer, status: EvaluatorStatus | None
    ) -> None:
        for failure in answer.failures:
            running.journal.append(failure)
        if answer.rent is not None:
            running.search.pay_rent(answer.rent)
        self._latest = (running,)
        result = answer.result
        if not answer.cached:
            running.device_s += result.device_s
            cold = status is not None and result.boot in status.backend.cold_boots
            running.saw_boot(result.boot, result.device, cold=cold)
            running.pacing.observe(
                in_flight=running.search.num_in_flight,
                waiting=min(answer.waiting, running.evaluating - 1),
                dry=answer.waiting == 0,
            )
        if running.running:
            running.search.tell(ready.candidate.id, result, repeat=ready.repeat, cached=answer.cached)

    def _fail(self, running: RunningSearch, error: InfraError | UserError) -> None:
        failure = Failure(kind="user" if isinstance(error, UserError) else "infra", message=str(error))
        running.failure = running.failure or failure
        self._changed.set()


def active_s(entries: list[Entry]) -> float:
    """Seconds that the search was worked on: gaps that end in an `Opened` are not counted."""
    pairs = itertools.pairwise(entries)
    return sum(after.time - before.time for before, after in pairs if not isinstance(after.event, Opened))


def _is_over(held: _Held | None) -> bool:
    return held is None or held.until < time.monotonic()


def _device_s(entry: Entry) -> float:
    event = entry.event
    return event.result.device_s if isinstance(event, Evaluated) and not event.cached else 0.0
