"""An explorer: coroutines that lease a brief, let a proposer answer it, and hand the answer in."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Mapping
from typing import Protocol, TypeVar

from kbopt.cluster.evidence import Evidence
from kbopt.cluster.faults import unforeseen
from kbopt.cluster.messages import Factories, Failure, Idle, Lease, SearchSpec
from kbopt.core.costs import Usage
from kbopt.core.errors import InfraError, UserError
from kbopt.core.events import CandidateProfiled
from kbopt.core.ports import Attempt, Declined, Proposer, Summarizer
from kbopt.core.profile import NotProfiled, Profiled
from kbopt.core.proposals import Candidate, NoProposal, Trial
from kbopt.core.work import SummaryRequest

T = TypeVar("T")

SILENCE_S = 60.0
"""An explorer whose coordinator has not answered for this long stops by itself."""


class CoordinatorLink(Protocol):
    """The coordinator as an explorer reaches it, over Ray or in the same process."""

    def lease(self, index: int, incarnation: str) -> Awaitable[Lease | Idle]: ...
    def submit(self, search: str, candidate: Candidate) -> Awaitable[None]: ...
    def decline(self, search: str, brief: str, answer: NoProposal) -> Awaitable[None]: ...
    def summarized(self, search: str, text: str, usage: tuple[Usage, ...]) -> Awaitable[None]: ...
    def gave_up(self, search: str, failure: Failure) -> Awaitable[None]: ...
    def attempts(self, search: str, brief: str) -> Awaitable[tuple[Trial, ...]]: ...
    def attempt(
        self, search: str, brief: str, source: str, proposer: str, note: str
    ) -> Awaitable[Attempt | Declined]: ...
    def profiled(self, search: str, event: CandidateProfiled) -> Awaitable[None]: ...


class SearchAttempts:
    """The judge for the proposer of one search: the coordinator journals and evaluates what it asks."""

    def __init__(
        self, coordinator: CoordinatorLink, spec: SearchSpec, evidence: Evidence | None = None
    ) -> None:
        self._coordinator = coordinator
        self._spec = spec
        self._evidence = evidence

    async def earlier(self, brief: str) -> tuple[Trial, ...]:
        return await self._coordinator.attempts(self._spec.name, brief)

    async def judge(self, brief: str, source: str, *, proposer: str, note: str) -> Attempt | Declined:
        return await self._coordinator.attempt(self._spec.name, brief, source, proposer, note)

    async def profile(self, candidate: Candidate) -> Profiled:
        if self._evidence is None or not self._spec.evidence:
            return NotProfiled(reason="this search goes without profiles (--no-evidence)")
        found, event = await self._evidence.told(candidate, self._spec)
        await self._coordinator.profiled(self._spec.name, event)
        return found


class Explorer:
    """Runs `loops` coroutines against one coordinator until it has no more work or falls silent.

    Proposers are built once for each search, in this process.
    """

    def __init__(
        self,
        index: int,
        coordinator: CoordinatorLink,
        specs: Mapping[str, SearchSpec],
        factories: Factories,
        loops: int,
        *,
        evidence: Evidence | None = None,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._evidence = evidence
        self._silence_s = silence_s
        self._index = index
        self._coordinator = coordinator
        self._specs = specs
        self._factories = factories
        self._loops = loops
        self._incarnation = uuid.uuid4().hex
        self._proposers: dict[str, Proposer] = {}
        self._summarizers: dict[str, Summarizer] = {}

    async def run(self) -> None:
        """Returns when the coordinator has finished. Raises TimeoutError when it fell silent."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._loops):
                group.create_task(self._loop())

    async def _loop(self) -> None:
        while True:
            lease = await self._answered(self._coordinator.lease(self._index, self._incarnation))
            if isinstance(lease, Lease):
                await self._answered(await self._work(lease))
            elif lease.finished:
                return

    async def _answered(self, answer: Awaitable[T]) -> T:
        async with asyncio.timeout(self._silence_s):
            return await answer

    async def _work(self, lease: Lease) -> Awaitable[None]:
        """Do what `lease` asks for; the result hands it in."""
        search, work = lease.search, lease.work
        try:
            if isinstance(work, SummaryRequest):
                text, usage = await self._summary(search, work)
                return self._coordinator.summarized(search, text, usage)
            if self._evidence is not None:
                work = await self._evidence.added(work, self._specs[search])
            answer = await self._proposer(search).propose(work)
        except UserError as error:
            failure = Failure(kind="user", message=str(error))
        except InfraError as error:
            failure = Failure(kind="infra", message=str(error))
        except Exception as error:  # noqa: BLE001
            # A fault of kbopt or of a user's proposer: this search ends and says so, others go on.
            failure = unforeseen("the proposer", error)
        else:
            if isinstance(answer, NoProposal):
                return self._coordinator.decline(search, work.id, answer)
            return self._coordinator.submit(search, answer)
        return self._coordinator.gave_up(search, failure)

    async def _summary(self, search: str, request: SummaryRequest) -> tuple[str, tuple[Usage, ...]]:
        """New recommendations, or the previous ones where the service is down: none is worth a search."""
        try:
            return await self._summarizer(search).summarize(request.trials, request.previous)
        except InfraError:
            return request.previous, ()

    def _proposer(self, search: str) -> Proposer:
        if search not in self._proposers:
            attempts = SearchAttempts(self._coordinator, self._specs[search], self._evidence)
            self._proposers[search] = self._factories.proposer(self._specs[search], attempts)
        return self._proposers[search]

    def _summarizer(self, search: str) -> Summarizer:
        if search not in self._summarizers:
            self._summarizers[search] = self._factories.summarizer(self._specs[search])
        return self._summarizers[search]
