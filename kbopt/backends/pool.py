"""A backend over several devices of one machine. Each device has its own service."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from kbopt.backends.awaiting import in_order, summed
from kbopt.backends.local import LocalBackend
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest, Result, TaskReport
from kbopt.core.ports import Backend, BackendStatus, Describer, Profiler
from kbopt.core.profile import Profiled, ProfileRequest
from kbopt.evaluation.sandbox.memory import GIB, find_host

_STAYS_FOR = 4
"""A device that knows a task gets its requests if it has at most this many more in flight than the idlest
device. To admit the task on another device takes 1 to 5 s, as long as a few candidates."""
_AWAY_S = 30.0
"""Seconds for which a lost device gets no work. Then it is tried again, and its service starts anew."""
_FAILURES = 3
"""Tasks that a device fails in a row before it counts as lost although its service runs. One task alone may
be to blame itself, as one whose judge ends: it takes no device from the others."""


class DevicePool:
    """Implements the Backend port with several `members`, whose devices must be of one kind.

    A task stays on a device that knows it, unless another one is much less busy. The other devices do the
    work of a lost one. `evaluate` raises InfraError only if all devices fail.
    """

    def __init__(self, members: Sequence[Backend], clock: Callable[[], float] = time.monotonic) -> None:
        self._members = list(members)
        self._clock = clock
        self._num_in_flight = [0] * len(members)
        self._away_until = [0.0] * len(members)
        self._failed: list[set[str]] = [set() for _ in members]
        self._knows: dict[str, set[int]] = {}
        self._is_open = False
        self._opening = asyncio.Lock()
        self.max_in_flight = sum(member.max_in_flight for member in members)
        self.max_batch = max(member.max_batch for member in members)

    async def open(self) -> BackendStatus:
        """Open all members. One that cannot start is reported on stderr and left out for a while.

        Raises UserError for devices of several kinds or a device that does not exist, and InfraError if none
        starts.
        """
        async with self._opening:
            if not self._is_open:
                await self._open()
        return await self.status()

    async def _open(self) -> None:
        answers = await asyncio.gather(*(member.open() for member in self._members), return_exceptions=True)
        for number, answer in enumerate(answers):
            if isinstance(answer, InfraError):
                self._lose(number, answer)
            elif isinstance(answer, BaseException):
                await self.close()
                raise answer
        statuses = [answer for answer in answers if isinstance(answer, BackendStatus)]
        if not statuses:
            raise next(answer for answer in answers if isinstance(answer, InfraError))
        if len(names := sorted({status.device for status in statuses})) > 1:
            await self.close()
            raise UserError(
                f"the devices differ: {', '.join(names)}. Speedups on one are none on the other: give "
                "--device cuda:N and leave out --gpus"
            )
        self._is_open = True

    async def evaluate(self, requests: Sequence[EvalRequest]) -> list[Result]:
        await self.open()
        return await in_order(map(self._one, requests))

    async def profile(self, request: ProfileRequest) -> Profiled:
        """Profile on a device that knows the task. Raises UserError if its backend has no profiles."""
        async with self._member(request.task.key) as member:
            if not isinstance(member, Profiler):
                raise UserError("these devices have no profiles; give --backend local")
            return await member.profile(request)

    async def describe(self, request: EvalRequest) -> TaskReport:
        """Describe the task on a device that knows it. Raises UserError if its backend describes none."""
        async with self._member(request.task.key) as member:
            if not isinstance(member, Describer):
                raise UserError("these devices describe no tasks; give --backend local")
            return await member.describe(request)

    @asynccontextmanager
    async def _member(self, task: str) -> AsyncIterator[Backend]:
        """Choose a device for a question about `task`, and count it as busy within the context. It knows the
        task then.
        """
        await self.open()
        number = self._choose(task, set())
        self._num_in_flight[number] += 1
        try:
            yield self._members[number]
            self._knows.setdefault(task, set()).add(number)
        finally:
            self._num_in_flight[number] -= 1

    async def status(self) -> BackendStatus:
        """Return the status of the first warm device, with the boots of all and the number of warm ones."""
        statuses = [await member.status() for member in self._members]
        first = next((status for status in statuses if status.state == "warm"), statuses[0])
        num_warm = sum(status.state == "warm" for status in statuses)
        detail = [f"{num_warm} of {len(statuses)} devices", first.detail]
        return BackendStatus(
            state=first.state,
            device=first.device,
            boot=", ".join(status.boot for status in statuses if status.boot),
            age_s=max(status.age_s for status in statuses),
            cold_boots=tuple(boot for status in statuses for boot in status.cold_boots),
            detail="; ".join(part for part in detail if part),
            warning=next((status.warning for status in statuses if status.warning), ""),
            phases=summed(status.phases for status in statuses),
        )

    async def close(self) -> None:
        await asyncio.gather(*(member.close() for member in self._members))
        self._is_open = False

    async def _one(self, request: EvalRequest) -> Result:
        tried: set[int] = set()
        while True:
            number = self._choose(request.task.key, tried)
            self._num_in_flight[number] += 1
            try:
                (result,) = await self._members[number].evaluate([request])
            except InfraError as error:
                tried.add(number)
                self._failed[number].add(request.task.key)
                is_warm = (await self._members[number].status()).state == "warm"
                if not is_warm or len(self._failed[number]) >= _FAILURES:
                    self._lose(number, error)
                if len(tried) == len(self._members):
                    raise
            else:
                self._failed[number].clear()
                self._knows.setdefault(request.task.key, set()).add(number)
                return result
            finally:
                self._num_in_flight[number] -= 1

    def _choose(self, task: str, tried: set[int]) -> int:
        """Return a device not in `tried`: the idlest, or one that knows the task and is hardly busier."""
        left = [number for number in range(len(self._members)) if number not in tried]
        now = self._clock()
        there = [number for number in left if self._away_until[number] <= now] or left
        idlest = min(there, key=self._num_in_flight.__getitem__)
        known = [number for number in there if number in self._knows.get(task, ())]
        home = min(known, key=self._num_in_flight.__getitem__, default=idlest)
        is_near = self._num_in_flight[home] <= self._num_in_flight[idlest] + _STAYS_FOR
        return home if is_near else idlest

    def _lose(self, number: int, error: InfraError) -> None:
        self._away_until[number] = self._clock() + _AWAY_S
        self._failed[number].clear()
        for known in self._knows.values():
            known.discard(number)
        print(f"device {number} is lost for {_AWAY_S:g} s: {error}", file=sys.stderr, flush=True)


def local_pool(gpus: int, state_dir: Path, *, needs_sandbox: bool = False) -> DevicePool:
    """Return a pool of this machine's first `gpus` GPUs, each with an equal share of cores and memory."""
    cores = sorted(os.sched_getaffinity(0))
    memory_gib = find_host().limit_bytes / GIB / gpus
    return DevicePool(
        [
            LocalBackend(
                device=f"cuda:{number}",
                state_dir=state_dir,
                needs_sandbox=needs_sandbox,
                cores=cores[number::gpus] or cores,
                memory_gib=memory_gib,
            )
            for number in range(gpus)
        ]
    )
