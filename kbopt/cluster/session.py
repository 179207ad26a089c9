"""The actors in Ray, and the driver's hold on them.

On one machine the actors live in the driver's own Ray and die with it. On a cluster (`address`) the
evaluator and the coordinator are detached: the driver attaches, watches, and may go away.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from kbopt.cluster.actors import EVALUATOR, FOREVER, CoordinatorActor, EvaluatorActor, own_error
from kbopt.cluster.messages import CoordinatorStatus, EvaluatorStatus, Factories, SearchSpec
from kbopt.cluster.ray_start import start_ray
from kbopt.core.errors import InfraError, UserError
from kbopt.core.spending import Shared
from kbopt.store.cache import EvaluationCache

COORDINATOR = "coordinator:"

T = TypeVar("T")

ATTACHMENTS = 5
"""How often a driver looks for new actors when those that it watched are gone."""

NODES_S = 600.0
"""How long a sweep waits for the nodes that it is to start with."""

CREATION_S = 300.0
"""How long an actor may take to come up: a node with the `evaluator` resource must be free for it."""


class ActorGone(InfraError):
    """An actor that Ray will not start again: it was ended, or could not be created."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """Where the actors run. `address` None starts a Ray of one's own on this machine; `nodes` are waited for.

    The fingerprints name the configuration of the sweep and of the device: on a cluster, actors that are
    there already are used only if theirs are the same. The sweep stops once `stop_file` exists.
    `shared` is what all searches have together, where their budgets grow.
    """

    address: str | None = None
    nodes: int = 1
    explorers: int = 8
    parallel_searches: int = 8
    stop_file: Path | None = None
    shared: Shared | None = None
    fingerprint: str = ""
    device_fingerprint: str = ""


class Session:
    """The actors of one sweep. A context manager: on one machine, leaving it ends the actors."""

    def __init__(
        self,
        name: str,
        specs: tuple[SearchSpec, ...],
        factories: Factories,
        cache: Path,
        settings: ClusterSettings,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._say = say
        self._name = name
        self._specs = specs
        self._factories = factories
        self._cache = cache
        self._settings = settings
        self._evaluator: Any = None
        self._coordinator: Any = None
        # Ray prints the deaths of workers on stdout, which belongs to the result.
        self._stdout = redirect_stdout(_WithoutRetries())

    def __enter__(self) -> Self:
        self._stdout.__enter__()
        try:
            EvaluationCache(self._cache).close()  # an actor that cannot open it would die with Ray's words
            start_ray(self._settings.address)
            self._wait_for_nodes()
            self._attached(self._create_actors)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait_for_nodes(self) -> None:
        wanted, said = self._settings.nodes, -1
        deadline = time.monotonic() + NODES_S
        while (alive := sum(node["Alive"] for node in ray.nodes())) < wanted:
            if alive != said:
                self._say(f"waiting for {wanted} nodes; {alive} are there")
                said = alive
            if time.monotonic() > deadline:
                raise InfraError(
                    f"the cluster has {alive} nodes after {NODES_S / 60:g} minutes, --nodes says {wanted}; "
                    "`ray status` and `ray monitor ray_cluster.yaml` say why"
                )
            time.sleep(1.0)

    def _create_actors(self) -> None:
        """Create the actors, or attach to those that are there."""
        if self._settings.address:
            self._clear_away()
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
            .remote(self._factories.backend, self._cache, self._settings.device_fingerprint)
        )
        self._compare(
            self._evaluator,
            self._settings.device_fingerprint,
            "the cluster's evaluator holds another backend or device; wait for the sweep that uses it, "
            "or stop it with `kbopt sweep stop NAME`",
        )
        self._coordinator = (
            ray.remote(CoordinatorActor)
            .options(
                name=self._coordinator_name,
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
                stop_file=self._settings.stop_file,
                shared=self._settings.shared,
                fingerprint=self._settings.fingerprint,
            )
        )
        self._compare(
            self._coordinator,
            self._settings.fingerprint,
            f"a sweep {self._name!r} of another folder or with other settings is under way on the cluster; "
            "choose another --name",
        )

    @property
    def _coordinator_name(self) -> str:
        return f"{COORDINATOR}{self._name}"

    def _clear_away(self) -> None:
        """End what a former sweep left on the cluster.

        That is a coordinator of this name whose sweep is over, for example because it was stopped; and the
        evaluator, if no coordinator uses it: it may hold another device, or a cache in a folder that is gone.
        """
        with suppress(ValueError, ActorGone):  # there is none
            former = ray.get_actor(self._coordinator_name)
            if _result(former.status.remote(), CREATION_S).finished:
                _end(former, self._coordinator_name)
        if not any(name.startswith(COORDINATOR) for name in ray.util.list_named_actors()):
            with suppress(ValueError, ActorGone):
                evaluator = ray.get_actor(EVALUATOR)
                _result(evaluator.close.remote(), timeout_s=30.0)
                _end(evaluator, EVALUATOR)

    def __exit__(self, *_: object) -> None:
        if self._settings.address is None:
            ray.shutdown()
        self._stdout.__exit__(None, None, None)

    def _compare(self, actor: Any, fingerprint: str, complaint: str) -> None:
        if _result(actor.fingerprint.remote(), CREATION_S) != fingerprint:
            raise UserError(complaint)

    def open_device(self, on_wait: Callable[[EvaluatorStatus], None]) -> None:
        """Start or find the device; `on_wait` sees its state every 0.5 s until it is there."""

        def opened() -> None:
            opening = self._evaluator.open.remote()
            while not ray.wait([opening], timeout=0.5)[0]:
                on_wait(self.evaluator_status())
            _result(opening)

        self._attached(opened)

    def status(self) -> CoordinatorStatus:
        return self._attached(lambda: _result(self._coordinator.status.remote(), timeout_s=60.0))

    def evaluator_status(self) -> EvaluatorStatus:
        return self._attached(lambda: _result(self._evaluator.status.remote(), timeout_s=60.0))

    def _attached(self, ask: Callable[[], T]) -> T:
        """The answer of actors that another driver may have ended meanwhile: then there are new ones.

        A sweep that two drivers watch is ended by the one that sees its end first; to the other, a new
        coordinator tells from the journals how it ended. Of two drivers that start at once, one may clear
        the other's evaluator away.
        """
        for _ in range(ATTACHMENTS):
            try:
                return ask()
            except ActorGone:
                if self._settings.address is None:
                    raise
                with suppress(ActorGone):  # told by the next attempt
                    self._create_actors()
        return ask()

    def stop(self, reason: str, *, end: bool) -> None:
        """Stop the searches; with `end` for good, without so that they can be gone on with.

        The coordinator goes. The evaluator of a cluster stays: another sweep may be using it.
        """
        if self._settings.address is None:
            _result(self._coordinator.stop.remote(reason, end=end), timeout_s=30.0)
            # Its name is not waited for: where SIGTERM went to Ray's processes too, nobody answers for long.
            ray.kill(self._coordinator)
            _result(self._evaluator.close.remote(), timeout_s=30.0)
            return
        with suppress(ActorGone):  # another driver was quicker
            _result(self._coordinator.stop.remote(reason, end=end), timeout_s=30.0)
            _end(self._coordinator, self._coordinator_name)


class _WithoutRetries(io.TextIOBase):
    """Standard error, without what Ray says of calls that it will try again: those are no news to anyone."""

    def __init__(self) -> None:
        self._dropped = False

    def write(self, text: str) -> int:
        self._dropped = "retries remaining" in text or (self._dropped and text == "\n")
        return len(text) if self._dropped else sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _end(actor: Any, name: str) -> None:
    """Kill `actor` for good; returns when its name is free."""
    ray.kill(actor)
    deadline = time.monotonic() + 30.0
    while name in ray.util.list_named_actors() and time.monotonic() < deadline:
        time.sleep(0.05)


def _result(reference: Any, timeout_s: float | None = None) -> Any:
    try:
        return ray.get(reference, timeout=timeout_s)
    except RayTaskError as error:
        raise own_error(error) from error
    except RayActorError as error:
        raise ActorGone(f"an actor died: {error}") from error
    except GetTimeoutError as error:
        raise InfraError(f"an actor did not answer within {timeout_s} s") from error
    except RayError as error:
        raise InfraError(f"Ray failed: {error}") from error
