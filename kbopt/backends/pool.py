"""Several devices of one machine behind one queue, each with a service and a lease of its own."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from kbopt.backends.awaiting import in_order
from kbopt.backends.local import LocalBackend
from kbopt.core.errors import InfraError, UserError
from kbopt.core.ports import Backend, BackendStatus, Describer, Profiler
from kbopt.core.profile import Profiled, ProfileRequest
from kbopt.core.types import EvalRequest, Result, TaskReport
from kbopt.evaluation.sandbox.memory import GIB, find_host

_STAYS_FOR = 4
"""Requests by which a device may be busier than the idlest one and still get those of a task that it knows.
To admit a task elsewhere takes one to five seconds, as long as a few candidates."""
_AWAY_S = 30.0
"""For which a device that was lost gets no work. Then it is tried again: its service starts anew."""


class DevicePool:
    """Implements the Backend port by `members`, whose devices have to be of one kind.

    A task stays on the device that knows it while that is no slower. The work of a device that is lost is
    done by the others, and `evaluate` raises InfraError only where none is left.
    """

    def __init__(self, members: Sequence[Backend], clock: Callable[[], float] = time.monotonic) -> None:
        self._members = list(members)
        self._clock = clock
        self._num_in_flight = [0] * len(members)
        self._away_until = [0.0] * len(members)
        self._knows: dict[str, set[int]] = {}
        self._is_open = False
        self._opening = asyncio.Lock()
        self.max_in_flight = sum(member.max_in_flight for member in members)
        self.max_batch = max(member.max_batch for member in members)

    async def open(self) -> BackendStatus:
        """Open all of them; one that cannot be started is said so and left out for a while.

        Raises UserError for devices of several kinds or that are not there, InfraError where none starts.
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
        """By one that knows the task. Raises UserError where it has no profiles."""
        async with self._member(request.task.key) as member:
            if not isinstance(member, Profiler):
                raise UserError("these devices have no profiles; give --backend local")
            return await member.profile(request)

    async def describe(self, request: EvalRequest) -> TaskReport:
        """By one that knows the task. Raises UserError where it describes none."""
        async with self._member(request.task.key) as member:
            if not isinstance(member, Describer):
                raise UserError("these devices describe no tasks; give --backend local")
            return await member.describe(request)

    @asynccontextmanager
    async def _member(self, task: str) -> AsyncIterator[Backend]:
        """The device for a question about `task`, which is counted as busy meanwhile."""
        await self.open()
        number = self._choose(task, set())
        self._num_in_flight[number] += 1
        try:
            yield self._members[number]
        finally:
            self._num_in_flight[number] -= 1

    async def status(self) -> BackendStatus:
        """Of the first that is warm; the boots and cold starts of all, and how many are there."""
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
                self._lose(number, error)
                if len(tried) == len(self._members):
                    raise
            else:
                self._knows.setdefault(request.task.key, set()).add(number)
                return result
            finally:
                self._num_in_flight[number] -= 1

    def _choose(self, task: str, tried: set[int]) -> int:
        """The idlest device, or one that knows the task and is hardly busier; none that was `tried`."""
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
        for known in self._knows.values():
            known.discard(number)
        print(f"device {number} is lost for {_AWAY_S:g} s: {error}", file=sys.stderr, flush=True)


def local_pool(gpus: int, state_dir: Path, *, needs_sandbox: bool = False) -> DevicePool:
    """The first `gpus` GPUs of this machine, each with a share of its cores and of its memory."""
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
