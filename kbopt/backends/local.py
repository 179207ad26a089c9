"""The device of this machine, behind the evaluation service as a child process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from kbopt.core.errors import InfraError
from kbopt.core.ports import BackendState, BackendStatus
from kbopt.core.types import EvalRequest, Result
from kbopt.evaluation.client import ServiceClient, ServiceInfo


class LocalBackend:
    """Implements the Backend port. A service that died is started again by the next call, and counted.

    `state_dir` keeps builds and baselines between runs and may be shared by several backends.
    """

    max_in_flight = 16
    max_batch = 1
    """The service streams its answers, so no result has to wait for the others of a batch."""

    def __init__(self, *, device: str = "auto", state_dir: Path) -> None:
        self._client = ServiceClient(device=device, state_dir=state_dir)
        self._info: ServiceInfo | None = None
        self._state: BackendState = "closed"
        self._cold_boots: tuple[str, ...] = ()
        self._starting = asyncio.Lock()

    @property
    def pid(self) -> int:
        """The service's process id, 0 before it was started."""
        return self._info.pid if self._info else 0

    async def open(self) -> BackendStatus:
        """Start the service unless it runs. Raises UserError for a device that is not there, InfraError."""
        await self._ensure_running()
        return await self.status()

    async def evaluate(self, requests: Sequence[EvalRequest]) -> list[Result]:
        """Results in the order of the requests. All are awaited even when one raises."""
        await self._ensure_running()
        answers = await asyncio.gather(
            *(self._client.evaluate(request) for request in requests), return_exceptions=True
        )
        results: list[Result] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            results.append(answer)
        return results

    async def status(self) -> BackendStatus:
        info = self._info
        state: BackendState = "failed" if self._state == "warm" and not self._client.alive else self._state
        return BackendStatus(
            state=state,
            device=info.device if info else "",
            boot=info.boot if info else "",
            age_s=time.time() - info.started if info else 0.0,
            cold_boots=self._cold_boots,
            detail=info.isolation if info else "",
        )

    async def close(self) -> None:
        await self._client.close()
        self._state = "closed"

    async def _ensure_running(self) -> None:
        async with self._starting:
            if self._client.alive:
                return
            self._state = "starting"
            try:
                self._info = await self._client.open()
            except InfraError:
                self._state = "failed"
                raise
            self._state = "warm"
            self._cold_boots += (self._info.boot,)
