"""A backend for a device of this machine, with the evaluation service as a child process."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from kbopt.backends.awaiting import in_order
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest, Result, TaskReport
from kbopt.core.outcomes import Measured
from kbopt.core.ports import BackendState, BackendStatus
from kbopt.core.profile import Profiled, ProfileRequest
from kbopt.evaluation.client import ServiceClient
from kbopt.evaluation.messages import ServiceInfo
from kbopt.evaluation.sandbox.confinement import LET_USERS_HAVE_NAMESPACES, NO_SANDBOX
from kbopt.evaluation.server import neighbours

SANDBOX_REMEDY = f"{LET_USERS_HAVE_NAMESPACES}, run kbopt as root, or use --backend modal"


class LocalBackend:
    """Implements the Backend port. If the service has died, the next call starts it again.

    `state_dir` keeps builds and baselines between runs; several backends may share it. If candidates are not
    isolated, a warning is printed on stderr, or, with `needs_sandbox`, `open` raises UserError. The status
    also warns of other evaluators that were timing on the device, once a result says so. The service and its
    processes run on `cores` and use at most `memory_gib` of memory.
    """

    max_in_flight = 16
    max_batch = 1
    """The service sends each answer when it is ready, so a result never waits for others of a batch."""

    def __init__(
        self,
        *,
        device: str = "auto",
        state_dir: Path,
        needs_sandbox: bool = False,
        cores: Sequence[int] = (),
        memory_gib: float | None = None,
    ) -> None:
        self._client = ServiceClient(device=device, state_dir=state_dir, memory_gib=memory_gib, cores=cores)
        self._needs_sandbox = needs_sandbox
        self._info: ServiceInfo | None = None
        self._state: BackendState = "closed"
        self._cold_boots: tuple[str, ...] = ()
        self._starting = asyncio.Lock()
        self._disturbed = ""

    @property
    def log(self) -> Path:
        """The file with the output of the service."""
        return self._client.log

    @property
    def pid(self) -> int:
        """The service's process id, or 0 before it was started."""
        return self._info.pid if self._info else 0

    async def open(self) -> BackendStatus:
        """Start the service unless it runs. Raises InfraError, and UserError without device or sandbox."""
        await self._ensure_running()
        return await self.status()

    async def evaluate(self, requests: Sequence[EvalRequest]) -> list[Result]:
        """Return the results in the order of the requests. All are awaited even if one raises."""
        await self._ensure_running()
        results = await in_order(self._client.evaluate(request) for request in requests)
        for result in results:
            if isinstance(result.outcome, Measured):
                notes = result.outcome.audit.notes
                self._disturbed = next((n for n in notes if n.startswith(neighbours.NOTE)), self._disturbed)
        return results

    async def describe(self, request: EvalRequest) -> TaskReport:
        """Return whether the request's task can be scored, and what that takes. Raises InfraError."""
        await self._ensure_running()
        return await self._client.describe(request)

    async def profile(self, request: ProfileRequest) -> Profiled:
        """Profile one source. Raises UserError for a task that cannot be scored, and InfraError."""
        await self._ensure_running()
        return await self._client.profile(request)

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
            warning=self._disturbed or self._warning,
            phases=self._client.phases,
        )

    @property
    def _warning(self) -> str:
        if self._info is None or self._info.is_isolated:
            return ""
        return NO_SANDBOX.format(isolation=self._info.isolation)

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
            if self._warning and self._needs_sandbox:
                await self.close()
                raise UserError(
                    f"{self._warning} Kernels that a language model wrote are not run so: {SANDBOX_REMEDY}. "
                    "If this machine holds nothing that matters, give --no-sandbox."
                )
            if self._warning and not self._cold_boots:
                print(self._warning, file=sys.stderr, flush=True)
            self._state = "warm"
            self._cold_boots += (self._info.boot,)
