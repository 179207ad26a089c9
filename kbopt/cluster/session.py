"""The actors in Ray, and the driver's hold on them.

On one machine the actors live in the driver's own Ray and die with it. On a cluster (`address`) the
evaluator and the coordinator are detached: the driver attaches, watches, and may go away.
"""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from kbopt.cluster.coordinator import Coordinator
from kbopt.cluster.evaluator import EvaluatorActor
from kbopt.cluster.explorer import Explorer
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
from kbopt.core.errors import InfraError, UserError
from kbopt.core.types import Candidate, EvalRequest, NoProposal, Usage

NAMESPACE = "kbopt"
EVALUATOR = "evaluator"
LOOPS_PER_ACTOR = 8
"""Proposal coroutines packed into one explorer actor: creating an actor costs 0.3 s and 90 MB."""

FOREVER: dict[str, int] = {"max_restarts": -1, "max_task_retries": -1}


class RemoteEvaluator:
    """The evaluator actor as the coordinator calls it: Ray's wrapped errors become kbopt's own."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def evaluate(self, search: str, request: EvalRequest) -> Answer:
        answer: Answer = await _unwrapped(self._handle.evaluate.remote(search, request))
        return answer

    async def status(self) -> EvaluatorStatus | None:
        status: EvaluatorStatus | None = await _unwrapped(self._handle.status.remote())
        return status


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


class ExplorerActor(Explorer):
    """An explorer as a Ray actor. It ends its process when it is done or the coordinator is silent."""

    def __init__(
        self,
        index: int,
        coordinator: Any,
        specs: Mapping[str, SearchSpec],
        factories: Factories,
        loops: int,
    ) -> None:
        super().__init__(index, RemoteCoordinator(coordinator), specs, factories, loops)

    async def run(self) -> None:
        try:
            await super().run()
        except* (TimeoutError, RayActorError):
            ray.actor.exit_actor()


class CoordinatorActor(Coordinator):
    """The coordinator as a Ray actor, which creates its explorers: those of a former life are kept."""

    def __init__(
        self,
        specs: tuple[SearchSpec, ...],
        factories: Factories,
        *,
        name: str,
        explorers: int,
        parallel_searches: int,
    ) -> None:
        remote = RemoteEvaluator(ray.get_actor(EVALUATOR, namespace=NAMESPACE))
        super().__init__(
            specs, factories, remote.evaluate, remote.status, parallel_searches=parallel_searches
        )
        by_name = {spec.name: spec for spec in specs}
        actors = math.ceil(explorers / LOOPS_PER_ACTOR)
        handle = ray.get_runtime_context().current_actor
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
                .remote(index, handle, by_name, factories, loops)
            )
            self._runs.append(actor.run.remote())


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """Where the actors run. `address` None starts a Ray of one's own on this machine."""

    address: str | None = None
    explorers: int = 8
    parallel_searches: int = 8


class Session:
    """The actors of one sweep. A context manager: on one machine, leaving it ends the actors."""

    def __init__(
        self,
        name: str,
        specs: tuple[SearchSpec, ...],
        factories: Factories,
        cache: Path,
        settings: ClusterSettings,
    ) -> None:
        self._name = name
        self._specs = specs
        self._factories = factories
        self._cache = cache
        self._settings = settings
        self._evaluator: Any = None
        self._coordinator: Any = None

    def __enter__(self) -> Self:
        start_ray(self._settings.address)
        detached = {"lifetime": "detached"} if self._settings.address else {}
        on_head = {"resources": {"node:__internal_head__": 0.001}} if self._settings.address else {}
        evaluator_place = {"resources": {"evaluator": 1}} if self._settings.address else {}
        self._evaluator = (
            ray.remote(EvaluatorActor)
            .options(
                name=EVALUATOR,
                get_if_exists=True,
                num_cpus=0,
                max_concurrency=10_000,
                **evaluator_place,
                **detached,
                **FOREVER,
            )
            .remote(self._factories.backend, self._cache)
        )
        self._coordinator = (
            ray.remote(CoordinatorActor)
            .options(
                name=f"coordinator:{self._name}",
                get_if_exists=True,
                num_cpus=0,
                max_concurrency=10_000,
                **on_head,
                **detached,
                **FOREVER,
            )
            .remote(
                self._specs,
                self._factories,
                name=self._name,
                explorers=self._settings.explorers,
                parallel_searches=self._settings.parallel_searches,
            )
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._settings.address is None:
            ray.shutdown()

    def open_device(self, on_wait: Callable[[EvaluatorStatus], None], poll_s: float = 0.5) -> None:
        """Start or find the device; `on_wait` sees its state every `poll_s` until it is there."""
        opening = self._evaluator.open.remote()
        while not ray.wait([opening], timeout=poll_s)[0]:
            on_wait(self.evaluator_status())
        _result(opening)

    def status(self, timeout_s: float = 60.0) -> CoordinatorStatus:
        return _result(self._coordinator.status.remote(), timeout_s)  # type: ignore[no-any-return]

    def evaluator_status(self, timeout_s: float = 60.0) -> EvaluatorStatus:
        return _result(self._evaluator.status.remote(), timeout_s)  # type: ignore[no-any-return]

    def stop(self, reason: str, *, end: bool) -> None:
        """Stop the searches; with `end` for good, without so that `kbopt resume` goes on."""
        _result(self._coordinator.stop.remote(reason, end=end), timeout_s=30.0)
        if self._settings.address is None:
            _result(self._evaluator.close.remote(), timeout_s=30.0)


def start_ray(address: str | None) -> None:
    """Connect to the cluster at `address`, or start Ray on this machine for this process alone."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled" if address is None else "token")
    options: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is None:
            ray.init(address="local", include_dashboard=False, **options)
        else:
            ray.init(address=address, **options)
    except (ConnectionError, RuntimeError) as error:
        where = address or "on this machine"
        raise InfraError(f"Ray did not start {where}: {error}") from error


def _result(reference: Any, timeout_s: float | None = None) -> Any:
    try:
        return ray.get(reference, timeout=timeout_s)
    except RayTaskError as error:
        raise _own_error(error) from error
    except RayActorError as error:
        raise InfraError(f"an actor died: {error}") from error
    except GetTimeoutError as error:
        raise InfraError(f"an actor did not answer within {timeout_s} s") from error


async def _unwrapped(reference: Any) -> Any:
    try:
        return await reference
    except RayTaskError as error:
        raise _own_error(error) from error


def _own_error(error: RayTaskError) -> Exception:
    """The `UserError` or `InfraError` that an actor raised, without Ray's traceback around it."""
    cause = error.cause
    return cause if isinstance(cause, UserError | InfraError) else error
