"""The coordinator: owns the searches of a sweep and their journals.

Explorers lease briefs and hand in candidates; the coordinator sends ready candidates to the evaluator
and tells the search what came back. Explorers never wait for an evaluation, and whatever has been
handed in survives every actor: it is in the journal before anything is done with it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kbopt.cluster.evidence import Evidence
from kbopt.cluster.faults import unforeseen
from kbopt.cluster.incarnations import Incarnations
from kbopt.cluster.messages import (
    Answer,
    CoordinatorStatus,
    EvaluatorStatus,
    Factories,
    Failure,
    Idle,
    Lease,
    SearchSpec,
)
from kbopt.cluster.running import RunningSearch
from kbopt.cluster.sharing import SharedPace, over
from kbopt.core.costs import Rent, Usage
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.events import CandidateProfiled, InfraFailed
from kbopt.core.ports import Attempt, Declined
from kbopt.core.proposals import Candidate, NoProposal, Trial
from kbopt.core.spending import Shared, next_portion
from kbopt.core.work import Ready

log = logging.getLogger(__name__)

POLL_S = 5.0
"""How long a lease request waits for work before it returns empty-handed."""

Evaluate = Callable[[str, EvalRequest, str], Awaitable[Answer]]
"""(search, request, scope) -> answer; raises `InfraError` or `UserError`."""


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
        evidence: Evidence | None = None,
        shared: Shared | None = None,
    ) -> None:
        self._stop_file = stop_file
        self._evidence = evidence
        self._shared = shared
        self._searches = {spec.name: RunningSearch(spec, factories) for spec in specs}
        self._evaluate = evaluate
        self._evaluator_status = evaluator_status
        self._take_rent = take_rent
        self._parallel_searches = parallel_searches
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._turn = itertools.count()
        self._pace = SharedPace()
        self._explorers = Incarnations()
        self._latest = tuple(self._searches.values())[-1:]
        for running in self._searches.values():
            self._settle(running)

    async def lease(self, index: int, incarnation: str) -> Lease | Idle:
        """Work for explorer `index`; `Idle` if there was none for `POLL_S`.

        A new incarnation of the same explorer frees what the old one held; the old one, back from a network
        that was cut, is sent home.
        """
        former = self._explorers.meet(index, incarnation)
        if former is not None:
            for running in self._searches.values():
                running.release(former)
        deadline = time.monotonic() + POLL_S
        while not self.finished:
            # Maybe since this call began to wait: nobody hears its answer.
            if self._explorers.is_retired(incarnation):
                return Idle(finished=True)
            self._changed.clear()
            self._share_out()
            for running in self._in_turn():
                work = None
                with self._ends_with_its_faults(running):
                    self._advance(running)  # after a restart: what was proposed before and has no result
                    self._look_at_task(running)
                    work = running.lease(incarnation)
                    self._advance(running)  # asking may have released what waited for the step's end
                self._settle(running)  # or have found the search at its end
                if work is not None:
                    return Lease(search=running.spec.name, work=work)
            remaining_s = deadline - time.monotonic()
            if self.finished or remaining_s <= 0:
                break
            # Not wait_for, which before Python 3.12 forgets that it was cancelled when the event comes then.
            with suppress(TimeoutError):
                async with asyncio.timeout(min(remaining_s, 1.0)):
                    await self._changed.wait()
        return Idle(finished=self.finished)

    def _share_out(self) -> None:
        """Give what the searches share to those of which most is expected; end those that get no more."""
        shared = self._shared
        if shared is None:
            return
        searches = list(self._searches.values())
        accounts = [running.account() for running in searches]
        while portion := next_portion(accounts, shared):
            running = searches[portion.index]
            with self._ends_with_its_faults(running):
                running.grant(portion)
            accounts[portion.index] = running.account()
        for index, reason in over(accounts, shared):
            self._end(searches[index], reason)

    def _end(self, running: RunningSearch, reason: str) -> None:
        with self._ends_with_its_faults(running):
            running.search.end(reason)
            self._advance(running)
        self._settle(running)

    def _look_at_task(self, running: RunningSearch) -> None:
        """Have the search told what limits its task, once, before it writes its first brief."""
        if running.search.wants_bounds and not running.looks:
            running.looks = True
            self._start(self._looked(running))

    async def _looked(self, running: RunningSearch) -> None:
        bounds = await self._evidence.bounds(running.spec) if self._evidence else ()
        self._guarded(running, lambda: running.search.take_bounds(bounds))

    async def submit(self, search: str, candidate: Candidate) -> None:
        """A brief's answer. Journalled before this returns; a late duplicate is dropped.

        Where a service embeds sources, it is journalled once that has answered: until then the brief is open.
        """
        running = self._searches[search]
        if running.waits_for_embeddings:
            self._start(self._embedded(running, candidate))
        else:
            self._propose(running, candidate)

    async def _embedded(self, running: RunningSearch, candidate: Candidate) -> None:
        with self._ends_with_its_faults(running):
            await asyncio.to_thread(running.embed, candidate.source)
            self._propose(running, candidate)

    def _propose(self, running: RunningSearch, candidate: Candidate) -> None:
        running.held.pop(candidate.id, None)
        self._guarded(running, lambda: running.search.propose(candidate))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def decline(self, search: str, brief: str, answer: NoProposal) -> None:
        """A brief that got no candidate."""
        running = self._searches[search]
        running.held.pop(brief, None)
        self._guarded(running, lambda: running.search.fail(brief, answer))

    async def attempts(self, search: str, brief: str) -> tuple[Trial, ...]:
        """What was judged on the way to the answer of `brief`, oldest first."""
        running = self._searches[search]
        return running.search.attempts(brief) if running.running else ()

    async def attempt(
        self, search: str, brief: str, source: str, proposer: str, note: str
    ) -> Attempt | Declined:
        """Journal a source of a brief that has no answer yet, and evaluate it. May be called again.

        Raises `InfraError` where the search ends before there is a result.
        """
        running = self._searches[search]
        if not running.running:
            return Declined(reason="the search is over")
        with self._ends_with_its_faults(running):
            asked = running.search.attempt(brief, source, proposer=proposer, note=note)
            if isinstance(asked, str):
                return Declined(reason=asked)
            known = [trial for trial in running.search.attempts(brief) if trial.candidate.id == asked.id]
            if known:
                return Attempt(trial=known[0], cached=True)
            future = asyncio.get_running_loop().create_future()
            waiting = running.attempting.setdefault(asked.id, future)
            self._advance(running)
        if running.failure is not None:
            raise InfraError(running.failure.message)
        return await asyncio.shield(waiting)

    async def profiled(self, search: str, event: CandidateProfiled) -> None:
        """What the agent of a brief was told of one of its kernels."""
        self._guarded(running := self._searches[search], lambda: running.journal.append(event))

    async def summarized(self, search: str, text: str, usage: tuple[Usage, ...]) -> None:
        running = self._searches[search]
        if running.summary is not None:  # else a late duplicate of an explorer that was thought lost
            running.summary = running.summary_held = None
            self._guarded(running, lambda: running.search.summarized(text, usage))

    async def gave_up(self, search: str, failure: Failure) -> None:
        """An explorer cannot serve this search any more, for example because every model is down."""
        self._fail(self._searches[search], failure)

    async def status(self) -> CoordinatorStatus:
        return CoordinatorStatus(
            searches=tuple(running.status() for running in self._searches.values()),
            explorers=len(self._explorers),
            finished=self.finished,
            stopped=self.stopped,
        )

    async def stop(self, reason: str, *, end: bool) -> None:
        """Stop all work. With `end` the searches are over; without, `kbopt resume` goes on with them."""
        # A search that was over long ago would seem to have gone on until now if it paid.
        payers = tuple(running for running in self._searches.values() if running.running) or self._latest
        for running in self._searches.values():
            if running.running and end:
                running.search.end(reason)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for running in self._searches.values():
            running.give_up_attempts(f"the search was stopped: {reason}")
        if rent := await self._take_rent():
            for running in payers:
                running.search.pay_rent(rent.share(len(payers)))
        for running in self._searches.values():
            running.close()

    @property
    def stopped(self) -> bool:
        """The user asked for a stop by creating the stop file; whoever resumes the sweep removes it."""
        return self._stop_file is not None and self._stop_file.exists()

    @property
    def finished(self) -> bool:
        return self.stopped or not any(running.running for running in self._searches.values())

    def _in_turn(self) -> list[RunningSearch]:
        """The searches under way, beginning with another one each time."""
        able = (s for s in self._searches.values() if s.running and not s.wants_more)
        active = list(itertools.islice(able, self._parallel_searches))
        first = next(self._turn) % len(active) if active else 0
        return active[first:] + active[:first]

    def _guarded(self, running: RunningSearch, change: Callable[[], None]) -> None:
        if not running.running:
            return
        with self._ends_with_its_faults(running):
            change()
            self._advance(running)
        self._settle(running)
        self._changed.set()

    def _settle(self, running: RunningSearch) -> None:
        """Keep only the status of a search that is over. The latest one may have rent to pay yet."""
        if running not in self._latest:
            running.settle()

    def _advance(self, running: RunningSearch) -> None:
        """Send what is ready to the evaluator."""
        if not running.running:
            return
        for one in running.search.take_ready():
            running.evaluating += 1
            self._start(self._measure(running, one))

    async def _measure(self, running: RunningSearch, ready: Ready) -> None:
        spec, request = running.spec, running.request(ready)
        try:
            with self._ends_with_its_faults(running):
                try:
                    answer = await self._evaluate(spec.name, request, spec.scope)
                except UserError as error:  # Such as baselines that do not fit into the host's memory.
                    if not ready.is_full:
                        raise
                    running.search.forgo_full(ready.candidate.id, str(error))
                else:
                    self._tell(running, ready, answer, await self._evaluator_status())
        finally:
            running.evaluating -= 1
        with self._ends_with_its_faults(running):
            self._advance(running)
        self._settle(running)
        self._changed.set()

    def _tell(
        self, running: RunningSearch, ready: Ready, answer: Answer, status: EvaluatorStatus | None
    ) -> None:
        running.note(answer)
        former, self._latest = self._latest, (running,)
        for search in former:
            self._settle(search)
        result = answer.result
        if not answer.cached:
            cold = status is not None and result.boot in status.backend.cold_boots
            running.saw_boot(result.boot, result.device, cold=cold)
            self._pace.observe(running, answer.waiting, self._in_turn)
        if running.running:
            running.search.tell(ready.candidate.id, result, repeat=ready.repeat, cached=answer.cached)
        waiting = running.attempting.pop(ready.candidate.id, None)
        if waiting is not None:
            trial = Trial(candidate=ready.candidate, results=(result,))
            waiting.set_result(Attempt(trial=trial, cached=answer.cached))

    @contextmanager
    def _ends_with_its_faults(self, running: RunningSearch) -> Iterator[None]:
        """An exception inside, of any type, ends the search `running` with a message; the others go on."""
        try:
            yield
        except UserError as error:
            self._fail(running, Failure(kind="user", message=str(error)))
        except InfraError as error:
            self._fail(running, Failure(kind="infra", message=str(error)))
        except Exception as error:
            # The border of a search: explorers and the driver would wait for ever for one that fell silent.
            log.exception("the search %s failed", running.spec.name)
            self._fail(running, unforeseen("the search", error))

    def _fail(self, running: RunningSearch, failure: Failure) -> None:
        if failure.details and running.failure is None and not running.settled:
            with suppress(InfraError):  # the journal may be what failed
                running.journal.append(InfraFailed(what="search", reason=failure.details, attempt=1))
        running.failure = running.failure or failure
        running.give_up_attempts(failure.message)
        self._changed.set()
