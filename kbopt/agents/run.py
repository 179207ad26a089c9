"""What an agent evaluates for one task in one session: a run, with the journal that every run has.

The agent takes the place of the proposers and of the algorithm: each kernel answers a brief without a parent.
The journal and the files at the end are those of `kbopt run`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any

from kbopt.cluster.evaluator import EvaluationQueue
from kbopt.cluster.evidence import Evidence
from kbopt.cluster.running import RunningSearch
from kbopt.compose.checks import check
from kbopt.compose.searches import factories, search_spec
from kbopt.config import RunConfig
from kbopt.core import codec
from kbopt.core.costs import Usage
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import Result
from kbopt.core.profile import Profiled
from kbopt.core.proposals import Brief, Candidate, NoProposal, Trial
from kbopt.core.settings import Budget, Guest, SearchSettings
from kbopt.core.work import Done, Ready, Stuck, Wait
from kbopt.finish import Finished, finish
from kbopt.store.journal import SqliteJournal

MAX_PROPOSALS = 100_000
"""Kernels of one session and task, those from the cache too. A search has a number of proposals; no agent
that is of use comes near this one, and a loop that has gone wild ends there."""


def settings(who: Guest, budget: Budget) -> SearchSettings:
    """How the search of `who` is set: it chooses no parents, and measures nothing again before its end."""
    return SearchSettings(
        algorithm=who,
        num_steps=MAX_PROPOSALS,
        num_candidates=1,
        num_proposals=1,
        remeasure_share=0.0,
        ties="oldest",  # of equal sources the one that was measured
        budget=budget,
    )


class AgentRun:
    """One run's folder, written while an agent works. For one event loop.

    `create` makes the folder; `close` lets its journal go. Between them `evaluate` may be called at any time,
    until `submit` or `end` was.
    """

    def __init__(self, config: RunConfig, folder: Path, queue: EvaluationQueue) -> None:
        self.config = config
        self.folder = folder
        self._queue = queue
        spec = search_spec(config, folder.resolve())
        self._running = RunningSearch(spec, factories(config.backend, config.proposer, folder))
        self._trials: dict[str, Trial] = {}
        self._cached: set[str] = set()
        self._lost: list[Ready] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._submission: asyncio.Task[Finished] | None = None
        self.submitted: str | None = None

    @classmethod
    def create(cls, config: RunConfig, folder: Path, queue: EvaluationQueue) -> AgentRun:
        """A new run. Raises `UserError` where its folder is taken or cannot be written."""
        check(config)
        SqliteJournal.create(folder / "journal.sqlite", codec.dumps(config.without_secrets)).close()
        return cls(config, folder, queue)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """What was judged, in the order of the proposals, by the measurements before the end."""
        return tuple(self._trials[key] for key in sorted(self._trials))

    @property
    def best(self) -> Trial | None:
        """The fastest correct kernel so far; after a submission the one that was submitted."""
        return self._running.search.best

    @property
    def num_evaluations(self) -> int:
        """Those that used the device or are about to; not those after the end."""
        search = self._running.search
        unproposed = len(search.outstanding())  # the journal took the brief and not its kernel
        under_way = search.num_in_flight - unproposed - len(self._lost) if self.submitted is None else 0
        return search.progress.evaluations + under_way

    @property
    def usd(self) -> float:
        """What it was journalled to have cost so far, in dollars."""
        return self._running.search.progress.usd

    def was_cached(self, candidate: str) -> bool:
        """Whether the result is that of an equal source, which costs no evaluation."""
        return candidate in self._cached

    def propose(self, source: str, *, proposer: str, note: str, usage: tuple[Usage, ...] = ()) -> Ready:
        """Take a kernel into the journal, with what it cost. Raises `UserError` where the search takes no
        more.
        """
        search = self._running.search
        asked = self._brief()
        if not isinstance(asked, Brief):
            raise UserError(f"{self.config.task.name} takes no more kernels: {asked.reason}")
        search.propose(
            Candidate(
                id=asked.id,
                source=source,
                parent=None,
                proposer=proposer,
                memory_version=asked.memory_version,
                note=note,
                usage=usage,
            )
        )
        *lost, ready = search.take_ready()  # a full disk may have come between a kernel and this
        self._lost += lost
        return ready

    async def evaluate(self, ready: Ready) -> Trial:
        """The verdict on a proposed kernel, journalled. Raises `UserError` or `InfraError` where there is
        none; then it is asked for again when the run ends.
        """
        # A task of its own: where the client goes away, its kernel is judged and journalled all the same.
        task = asyncio.create_task(self._measure(ready))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.shield(task)
        return self._trials[ready.candidate.id]

    async def profile(self, candidate: Candidate) -> Profiled:
        """What limits a kernel; the journal keeps what was told. Raises `InfraError`."""
        found, event = await Evidence(self._queue.profile).told(candidate, self._running.spec)
        self._running.journal.append(event)
        return found

    async def submit(self, candidate: str) -> Finished:
        """End the search with `candidate` as its answer: it and the best are measured once more, and the
        files made.

        A second call waits for the first. Raises `UserError` or `InfraError` as `evaluate` does; then it may
        be called again.
        """
        if self._submission is None or (self._submission.done() and self._submission.exception()):
            self.submitted = candidate
            self._submission = asyncio.create_task(self._finished_with(candidate))
        return await asyncio.shield(self._submission)

    def pay(self, reason: str, usage: tuple[Usage, ...]) -> None:
        """Take into the journal what was paid for no kernel; not after the search's end."""
        asked = self._brief()
        if isinstance(asked, Brief):
            self._running.search.fail(asked.id, NoProposal(reason=reason, usage=usage))

    async def end(self, reason: str) -> Finished:
        """End the search with the best kernel as its answer, if there is one; else as `submit` does."""
        return await self._finished(reason)

    def final(self, candidate: str) -> Result | None:
        """The final measurement of `candidate` or an equal source, None for one not among the best."""
        source = self._trials[candidate].candidate.source
        finals = (trial for trial in self._running.search.top(MAX_PROPOSALS) if trial.num_finals)
        return next((trial.judged[-1] for trial in finals if trial.candidate.source == source), None)

    async def close(self) -> None:
        """End what is under way and let the journal go; `kbopt resume` measures what is still to be."""
        tasks = [*self._under_way, *([self._submission] if self._submission else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            rent = await self._queue.take_rent()
            if rent is not None:
                self._running.search.pay_rent(rent)
        finally:
            self._running.close()
        await asyncio.to_thread(finish, self.folder)

    def _brief(self) -> Brief | Wait | Done | Stuck:
        """What the next kernel answers: a brief whose kernel the journal could not take, or a new one."""
        search = self._running.search
        return next(iter(search.outstanding()), None) or search.ask()

    async def _finished_with(self, candidate: str) -> Finished:
        try:
            return await self._finished(f"submitted {candidate}", candidate)
        finally:
            if not self._running.search.is_ending:  # the journal did not take the answer: the work goes on
                self.submitted = None

    async def _finished(self, reason: str, answer: str = "") -> Finished:
        search = self._running.search
        await asyncio.gather(*self._under_way, return_exceptions=True)
        lost, self._lost = self._lost, []
        await self._all(self._measure(one) for one in lost)
        search.end(reason, answer=answer)
        while search.ended is None:
            ready = search.take_ready()
            await self._all(self._measure(one) for one in ready)
        return await asyncio.to_thread(finish, self.folder)

    async def _all(self, work: Iterable[Coroutine[Any, Any, None]]) -> None:
        done = await asyncio.gather(*work, return_exceptions=True)
        for one in done:
            if isinstance(one, BaseException):
                raise one

    async def _measure(self, ready: Ready) -> None:
        """Ask the evaluator, and tell the journal and the search, as the coordinator of a run does."""
        spec, search, candidate = self._running.spec, self._running.search, ready.candidate
        try:
            answer = await self._queue.evaluate(spec.name, self._running.request(ready), spec.scope)
            self._running.note(answer)
            if not answer.cached:
                status = await self._queue.status()
                cold = answer.result.boot in status.backend.cold_boots
                self._running.saw_boot(answer.result.boot, answer.result.device, cold=cold)
            search.tell(candidate.id, answer.result, repeat=ready.repeat, cached=answer.cached)
        except UserError as error:  # such as baselines that do not fit into the host's memory
            if not ready.is_full:
                self._lost.append(ready)
                raise
            search.forgo_full(candidate.id, str(error))
            return
        except InfraError:  # of the evaluator, or of the journal: a full disk
            self._lost.append(ready)
            raise
        if ready.repeat == 0:
            self._trials[candidate.id] = Trial(candidate=candidate, results=(answer.result,))
            if answer.cached:
                self._cached.add(candidate.id)
