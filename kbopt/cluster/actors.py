"""The Ray actors: evaluation queue, coordinator and explorers, each with the little that is Ray's."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from kbopt.cluster.coordinator import Coordinator
from kbopt.cluster.evaluator import EvaluationQueue
from kbopt.cluster.evidence import Evidence
from kbopt.cluster.explorer import Explorer
from kbopt.cluster.messages import Answer, EvaluatorStatus, Factories, Failure, Idle, Lease, SearchSpec
from kbopt.cluster.metrics import PUBLISH_S, CoordinatorMetrics, EvaluatorMetrics
from kbopt.core.costs import Rent, Usage
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.events import CandidateProfiled
from kbopt.core.ports import Attempt, Backend, BackendStatus, Declined
from kbopt.core.profile import Profiled, ProfileRequest
from kbopt.core.proposals import Candidate, NoProposal, Trial
from kbopt.core.spending import Shared
from kbopt.store.cache import EvaluationCache

log = logging.getLogger(__name__)

NAMESPACE = "kbopt"
EVALUATOR = "evaluator"
LOOPS_PER_ACTOR = 8
"""Proposal coroutines packed into one explorer actor: creating an actor costs 0.3 s and 90 MB."""

GONE_S = 120.0
"""How long the coordinator looks for an evaluator that is gone, before the searches fail."""

LINGER_S = 60.0
"""How long a coordinator stays once its sweep is over, so that drivers see how it ended."""

FOREVER: dict[str, int] = {"max_restarts": -1, "max_task_retries": -1}


class EvaluatorActor(EvaluationQueue):
    """The queue as a Ray actor: the backend and the cache are built in the actor's own process.

    `fingerprint` says what it was built for, so that another driver can tell whether it is the one it wants.
    """

    def __init__(self, make_backend: Callable[[], Backend], cache: Path, fingerprint: str = "") -> None:
        super().__init__(make_backend(), EvaluationCache(cache))
        self._fingerprint = fingerprint
        self._publishing: asyncio.Task[None] | None = None

    async def open(self) -> BackendStatus:
        if self._publishing is None:
            self._publishing = asyncio.create_task(self._publish())
        return await super().open()

    async def fingerprint(self) -> str:
        return self._fingerprint

    async def _publish(self) -> None:
        metrics = EvaluatorMetrics()
        while True:
            metrics.publish(await self.status())
            await asyncio.sleep(PUBLISH_S)


class RemoteEvaluator:
    """The evaluator actor as the coordinator calls it: Ray's wrapped errors become kbopt's own.

    A crashed evaluator is started again by Ray, which sends it what it had not answered. One that was
    replaced is found again by its name.
    """

    def __init__(self) -> None:
        self._handle = ray.get_actor(EVALUATOR, namespace=NAMESPACE)

    async def evaluate(self, search: str, request: EvalRequest, scope: str) -> Answer:
        answer: Answer = await self._call("evaluate", search, request, scope)
        return answer

    async def profile(self, request: ProfileRequest) -> Profiled:
        profiled: Profiled = await self._call("profile", request)
        return profiled

    async def take_rent(self) -> Rent | None:
        """None also where the evaluator is gone for good: nobody knows what its device cost since."""
        try:
            rent: Rent | None = await _unwrapped(self._handle.take_rent.remote())
        except RayActorError:
            return None
        return rent

    async def status(self) -> EvaluatorStatus | None:
        status: EvaluatorStatus | None = await self._call("status")
        return status

    async def _call(self, method: str, *arguments: object) -> Any:
        deadline = time.monotonic() + GONE_S
        while True:
            try:
                return await _unwrapped(getattr(self._handle, method).remote(*arguments))
            except RayActorError as error:
                if time.monotonic() > deadline:
                    raise InfraError(f"the evaluator is gone: {error}") from error
            await asyncio.sleep(1.0)
            with suppress(ValueError):  # there is none of this name yet
                self._handle = ray.get_actor(EVALUATOR, namespace=NAMESPACE)


class RemoteCoordinator:
    """The coordinator actor as an explorer calls it."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def lease(self, index: int, incarnation: str) -> Awaitable[Lease | Idle]:
        return _unwrapped(self._handle.lease.remote(index, incarnation))

    def submit(self, search: str, candidate: Candidate) -> Awaitable[None]:
        return _unwrapped(self._handle.submit.remote(search, candidate))

    def decline(self, search: str, brief: str, answer: NoProposal) -> Awaitable[None]:
        return _unwrapped(self._handle.decline.remote(search, brief, answer))

    def summarized(self, search: str, text: str, usage: tuple[Usage, ...]) -> Awaitable[None]:
        return _unwrapped(self._handle.summarized.remote(search, text, usage))

    def gave_up(self, search: str, failure: Failure) -> Awaitable[None]:
        return _unwrapped(self._handle.gave_up.remote(search, failure))

    def attempts(self, search: str, brief: str) -> Awaitable[tuple[Trial, ...]]:
        return _unwrapped(self._handle.attempts.remote(search, brief))

    def attempt(
        self, search: str, brief: str, source: str, proposer: str, note: str
    ) -> Awaitable[Attempt | Declined]:
        return _unwrapped(self._handle.attempt.remote(search, brief, source, proposer, note))

    def profiled(self, search: str, event: CandidateProfiled) -> Awaitable[None]:
        return _unwrapped(self._handle.profiled.remote(search, event))


class ExplorerActor(Explorer):
    """An explorer as a Ray actor. It ends its process when the coordinator is gone or silent, or a loop
    fails.

    By dying, not by leaving Ray in order: where Ray is alive it starts the explorer again, which a cut
    network that heals needs; where the head is gone nobody does, and nothing is left behind.
    """

    def __init__(
        self,
        index: int,
        coordinator: Any,
        specs: Mapping[str, SearchSpec],
        factories: Factories,
        loops: int,
    ) -> None:
        evidence = Evidence(RemoteEvaluator().profile)
        super().__init__(index, RemoteCoordinator(coordinator), specs, factories, loops, evidence=evidence)

    async def run(self) -> None:
        try:
            await super().run()
        except* Exception:
            # The border of the process: an actor that stays without its loops would let the search hang.
            log.exception("an explorer ends")
            os._exit(1)


class CoordinatorActor(Coordinator):
    """The coordinator as a Ray actor, which creates its explorers: those of a former life are kept.

    When the sweep is over it ends itself after `LINGER_S`, and with it go its explorers.
    """

    def __init__(
        self,
        specs: tuple[SearchSpec, ...],
        factories: Factories,
        *,
        name: str,
        explorers: int,
        parallel_searches: int,
        stop_file: Path | None = None,
        fingerprint: str = "",
        shared: Shared | None = None,
    ) -> None:
        self._name = name
        self._fingerprint = fingerprint
        self._living: asyncio.Task[None] | None = None
        remote = RemoteEvaluator()
        super().__init__(
            specs,
            factories,
            remote.evaluate,
            remote.status,
            remote.take_rent,
            parallel_searches=parallel_searches,
            stop_file=stop_file,
            evidence=Evidence(remote.profile),
            shared=shared,
        )
        self._handle = ray.get_runtime_context().current_actor
        if self.finished:
            return
        by_name = {spec.name: spec for spec in specs}
        actors = math.ceil(explorers / LOOPS_PER_ACTOR)
        self._runs = []
        for index in range(actors):
            loops = explorers // actors + (index < explorers % actors)
            actor = (
                ray.remote(ExplorerActor)
                .options(
                    name=f"explorer:{name}:{index}",
                    get_if_exists=True,
                    num_cpus=0.01,
                    scheduling_strategy="SPREAD",
                    **FOREVER,
                )
                .remote(index, self._handle, by_name, factories, loops)
            )
            self._runs.append(actor.run.remote())

    async def fingerprint(self) -> str:
        if self._living is None:
            self._living = asyncio.create_task(self._live())
        return self._fingerprint

    async def lease(self, index: int, incarnation: str) -> Lease | Idle:
        if self._living is None:  # after a crash no driver may come to ask for the fingerprint
            self._living = asyncio.create_task(self._live())
        return await super().lease(index, incarnation)

    async def _live(self) -> None:
        """Publish the figures while the sweep goes on; then wait for drivers to see its end, and go."""
        metrics = CoordinatorMetrics(self._name)
        while True:
            metrics.publish(await self.status())
            if self.finished:
                break
            await asyncio.sleep(PUBLISH_S)
        await asyncio.sleep(LINGER_S)
        await self.stop("done", end=False)
        ray.kill(self._handle)


async def _unwrapped(reference: Any) -> Any:
    try:
        return await reference
    except RayTaskError as error:
        raise own_error(error) from error


def own_error(error: RayTaskError) -> Exception:
    """The `UserError` or `InfraError` that an actor raised, without Ray's traceback around it.

    Anything else is a fault of kbopt's or of a user's code: an `InfraError` in one line, with the actor's
    traceback as a note.
    """
    cause = error.cause
    if isinstance(cause, UserError | InfraError):
        return cause
    failure = InfraError(f"an actor failed: {str(error).strip().splitlines()[-1]}")
    failure.add_note(str(error))
    return failure
