"""The driver's side of Modal: a backend with warm containers, and functions for the command line.

A driver imports everything about Modal from here. The import sets MODAL_PAYLOAD_FORMAT to `cbor` for the
process, so that neither requests nor results are ever pickled.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from kbopt.backends import modal_app
from kbopt.backends.awaiting import summed
from kbopt.backends.modal_account import (
    GPU_NAMES,
    ContainerGone,
    check_gpu,
    check_token,
    connect,
    run_blocking,
)
from kbopt.backends.modal_deploy import (
    DEFAULT_WARM_MINUTES,
    app_name,
    deploy,
    deployed,
    ensure_deployed,
    is_deployed,
    stop_app,
    warm_seconds,
)
from kbopt.backends.modal_lane import PAGE_TIMEOUT_S, Lane
from kbopt.backends.modal_prices import load_prices
from kbopt.backends.modal_wire import ContainerInfo
from kbopt.core.costs import Rent
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest, Result
from kbopt.core.ports import BackendStatus

__all__ = [
    "GPU_NAMES",
    "ContainerStatus",
    "ModalBackend",
    "app_name",
    "check_gpu",
    "check_token",
    "container_status",
    "deploy",
    "ensure_deployed",
    "lane_names",
    "stop",
    "usd_per_second",
]

DEFAULT_START_TIMEOUT_S = 900.0
"""Seconds to wait for a container before giving up."""
DEFAULT_POLL_S = 5.0
"""Seconds between two looks at Modal's statistics while a call is awaited."""
MAX_GPUS = 64
OTHERS_S = 1.0
"""Seconds for further containers to answer after the first one."""
LANE = re.compile(r"[A-Za-z0-9._-]{1,40}")

BATCHES_PER_GPU = 16
BATCH_SIZE = 2
"""Requests in a batch. Batches are small, so that a result waits for at most one other and fits into one
message; and many are in flight, so that 32 candidates compile while one is timed."""


class ModalBackend:
    """Judges sources on `gpus` warm Modal containers with one `gpu` each. Other drivers may share them.

    A container stays warm for `warm_minutes` after the last call of any driver, also after `close`.
    `evaluate` raises InfraError if a container is gone, the app was stopped or a GPU is broken; the next call
    finds or starts another. A backend with the same `owner` as a killed driver joins the evaluations that the
    driver started, so that they are not paid twice.
    """

    def __init__(
        self,
        gpu: str,
        *,
        lane: str = "shared",
        gpus: int = 1,
        warm_minutes: float = DEFAULT_WARM_MINUTES,
        start_timeout_s: float = DEFAULT_START_TIMEOUT_S,
        owner: str = "",
        poll_s: float = DEFAULT_POLL_S,
    ) -> None:
        self._gpu = check_gpu(gpu)
        self._warm_minutes, self._warm_s = warm_minutes, warm_seconds(warm_minutes)
        self._usd_per_second = usd_per_second(self._gpu)
        owner = owner or uuid.uuid4().hex
        self._lanes = [
            Lane(self._gpu, name, owner, start_timeout_s=start_timeout_s, poll_s=poll_s, warm_s=self._warm_s)
            for name in lane_names(lane, gpus)
        ]
        self._openings: dict[Lane, asyncio.Task[None]] = {}
        self._attaching = asyncio.Lock()
        self._attached = self._closed = False
        self._build_output: str | None = None
        self.max_in_flight = BATCHES_PER_GPU * gpus
        self.max_batch = BATCH_SIZE

    async def open(self) -> BackendStatus:
        """Deploy the app if necessary, and find or start the containers. Return when the first one is warm.

        It waits up to `OTHERS_S` seconds more for others that are warm already, or the first one would get
        all work at first. Raises UserError without a usable token, and InfraError if no container starts.
        """
        await self._warm_lanes()
        if others := [opening for opening in self._openings.values() if not opening.done()]:
            await asyncio.wait(others, timeout=OTHERS_S)
        return await self.status()

    async def open_all(self) -> BackendStatus:
        """Open the backend, and return when all containers are warm. Raises the same errors as `open`."""
        await self.open()
        await asyncio.gather(*self._openings.values())
        return await self.status()

    async def evaluate(self, requests: Sequence[EvalRequest]) -> list[Result]:
        if not requests:
            return []
        lane = min(await self._warm_lanes(), key=lambda lane: lane.num_in_flight)
        try:
            return await lane.evaluate(requests)
        except InfraError as error:
            self._openings.pop(lane, None)
            self._attached = self._attached and not isinstance(error, ContainerGone)
            raise

    async def status(self) -> BackendStatus:
        """Return what is known without a call to Modal."""
        infos = [lane.info for lane in self._lanes if lane.info is not None]
        best = next((lane for lane in self._lanes if lane.state == "warm"), self._lanes[0])
        detail = "; ".join(dict.fromkeys(lane.detail for lane in self._lanes if lane.detail))
        building = self._build_output
        return BackendStatus(
            state="closed" if self._closed else "building" if building is not None else best.state,
            device=infos[0].device if infos else "",
            boot=", ".join(info.boot for info in infos),
            age_s=best.age_s,
            cold_boots=tuple(boot for lane in self._lanes for boot in lane.cold_boots),
            detail=detail if building is None else f"building the image: {building}",
            rent=self._rent(),
            idle_usd=len(infos) * self._warm_s * self._usd_per_second,
            phases=summed(lane.phases for lane in self._lanes),
        )

    async def close(self) -> None:
        """Stop holding the containers. They stay warm for the next driver."""
        openings = list(self._openings.values())
        self._openings.clear()
        for opening in openings:
            opening.cancel()
        await asyncio.gather(*openings, return_exceptions=True)
        for lane in self._lanes:
            lane.let_go()
        self._closed = True

    def _rent(self) -> Rent:
        """Return the container time of this backend so far. All drivers that share a container count it."""
        seconds = sum(lane.held_s() for lane in self._lanes)
        return Rent(gpu=self._gpu, seconds=seconds, usd=seconds * self._usd_per_second)

    async def _warm_lanes(self) -> list[Lane]:
        """Wait for a container that answers, and return all that do. The others go on starting."""
        if self._closed:
            raise UserError("this Modal backend is closed; open a new one")
        await self._attach()
        for lane in self._lanes:
            opening = self._openings.get(lane)
            if opening is None or (opening.done() and (opening.cancelled() or opening.exception())):
                self._openings[lane] = asyncio.create_task(lane.open())
        openings = dict(self._openings)
        while True:
            warm = [lane for lane, opening in openings.items() if opening.done() and not opening.exception()]
            if warm:
                return warm
            pending = [opening for opening in openings.values() if not opening.done()]
            if not pending:
                await next(iter(openings.values()))  # Raises the first lane's error.
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)

    async def _attach(self) -> None:
        async with self._attaching:
            if self._attached:
                return
            try:
                name = await deployed(warm_minutes=self._warm_minutes, on_output=self._show_build)
            finally:
                self._build_output = None
            for lane in self._lanes:
                lane.attach(name)
            self._openings.clear()
            self._attached = True

    def _show_build(self, line: str) -> None:
        self._build_output = line


def usd_per_second(gpu: str) -> float:
    """Return the price of a container with `gpu`. Raises UserError for a wrong name or price table."""
    return load_prices().usd_per_second(
        check_gpu(gpu), num_cores=modal_app.NUM_CORES, memory_gib=modal_app.MEMORY_GIB
    )


def lane_names(lane: str, gpus: int) -> tuple[str, ...]:
    """Return the names of the lanes of `gpus` containers. Raises UserError for a wrong name or number."""
    if not 1 <= gpus <= MAX_GPUS:
        raise UserError(f"{gpus} GPUs are asked for; allowed are 1 to {MAX_GPUS}")
    if not LANE.fullmatch(lane):
        raise UserError(f"lane {lane!r}: a name is 1 to 40 letters, digits, '.', '_' and '-'")
    return (lane, *(f"{lane}-{number}" for number in range(2, gpus + 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStatus:
    """The state of a container. `info` is the container's own answer, or None if none is up."""

    app: str
    gpu: str
    lane: str
    is_deployed: bool
    num_containers: int
    backlog: int
    info: ContainerInfo | None


def container_status(
    gpu: str, *, lane: str = "shared", warm_minutes: float = DEFAULT_WARM_MINUTES
) -> ContainerStatus:
    """Return the state of one container, without starting one. The question restarts its warm time."""
    return run_blocking(_container_status(_handle(gpu, lane), warm_minutes))


def stop(gpu: str | None = None, *, lane: str = "shared", warm_minutes: float = DEFAULT_WARM_MINUTES) -> bool:
    """Shut down the container of one GPU type after its batches, or the whole app at once if `gpu` is None.

    Return whether there was anything to stop.
    """
    return run_blocking(_stop(None if gpu is None else _handle(gpu, lane), warm_minutes))


def _handle(gpu: str, lane: str) -> Lane:
    owner = f"command-{uuid.uuid4().hex}"
    return Lane(check_gpu(gpu), lane, owner, start_timeout_s=PAGE_TIMEOUT_S, poll_s=1.0, warm_s=0.0)


async def _container_status(lane: Lane, warm_minutes: float) -> ContainerStatus:
    name = app_name(warm_minutes)
    await connect()
    known = await is_deployed(name)
    num_containers = backlog = 0
    if known:
        lane.attach(name)
        stats = await lane.current_stats()
        num_containers, backlog = stats.num_total_runners, stats.backlog
    if num_containers:
        await lane.open()
    return ContainerStatus(
        app=name,
        gpu=lane.gpu,
        lane=lane.name,
        is_deployed=known,
        num_containers=num_containers,
        backlog=backlog,
        info=lane.info,
    )


async def _stop(lane: Lane | None, warm_minutes: float) -> bool:
    name = app_name(warm_minutes)
    await connect()
    if not await is_deployed(name):
        return False
    if lane is None:
        await stop_app(name)
        return True
    lane.attach(name)
    if (await lane.current_stats()).num_total_runners == 0:
        return False
    await lane.call("retire", {"owner": lane.owner}, limit_s=PAGE_TIMEOUT_S)
    return True
