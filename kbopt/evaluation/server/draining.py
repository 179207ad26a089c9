"""Serves a spool: it takes requests without a result, from each driver in turn, and writes the results.

It needs no network, and only this package, numpy and torch. Any number of jobs may drain one spool, at once
or one after the other.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import platform
import re
import signal
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.profile import ProfileRequest
from kbopt.evaluation.client import ServiceClient
from kbopt.evaluation.messages import ServiceInfo
from kbopt.evaluation.sandbox.confinement import LET_USERS_HAVE_NAMESPACES, NO_SANDBOX
from kbopt.evaluation.spool.asked import Asked, Requests
from kbopt.evaluation.spool.files import POLL_S, RESULTS, AppendOnly, Complaints, Say, open_spool
from kbopt.evaluation.spool.jobs import BEAT_S, TAKEOVER_S, Job, JobState, show_life

AT_ONCE, AT_ONCE_ON_A_CPU = 16, 2
"""Requests that one job claims at most. On a GPU further ones are built while one is timed."""

MAX_LOSSES_IN_A_ROW = 3
"""Services that may die without a result in between. After that the job ends: the machine is to blame."""

PAUSE_S = 10.0
"""Seconds before the next try after the spool's folder could not be read or written, as on a full disk."""

USER_ERROR, INFRA_ERROR = 2, 3
"""Exit codes, the same as the command line's."""

SANDBOX_REMEDY = (
    f"To mend that, {LET_USERS_HAVE_NAMESPACES}, or give --no-sandbox if this machine holds nothing that "
    "matters."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a job drains a spool.

    It takes no more requests after `minutes` (None: no limit), or with `once` when all that are left belong
    to another job. It finishes those that it has taken. `takeover_s` is the age in seconds from which on a
    silent job counts as dead.
    """

    minutes: float | None = None
    once: bool = False
    takeover_s: float = TAKEOVER_S
    no_sandbox: bool = False


class Drain:
    """One job. `run` may be called once. `stopped_by` is the number of the signal that ended it, or 0."""

    def __init__(self, folder: Path, client: ServiceClient, options: Options, say: Say) -> None:
        self._folder = open_spool(folder)
        self._client = client
        self._options = options
        self._say = say
        self._complaints, self._unreadable = Complaints(say), Complaints(say)
        host = platform.node() or "host"
        name = f"{re.sub(r'[^A-Za-z0-9]+', '-', host)}-{uuid.uuid4().hex[:12]}"
        self._name, self._host, self._started = name, host, time.time()
        self._requests = Requests(self._folder, name, self._unreadable, takeover_s=options.takeover_s)
        self._info: ServiceInfo | None = None
        self._beats = itertools.count(1)
        self._num_judged = self._num_waiting = self._num_elsewhere = 0
        self._results = AppendOnly(self._folder / RESULTS / f"{name}.jsonl")
        self._unwritten: deque[tuple[Asked, Mapping[str, Any]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_once = AT_ONCE
        self._deadline = math.inf if options.minutes is None else time.monotonic() + 60 * options.minutes
        self._losses = 0
        self._next_try = 0.0
        self._trouble = ""
        self._using = threading.Lock()
        self._has_ended = False
        self._stop, self._ends = asyncio.Event(), asyncio.Event()
        self.stopped_by = 0

    async def run(self) -> None:
        """Serve until the options end it, or SIGTERM or SIGINT arrives. Raises UserError and InfraError."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopped, number)
        beating = asyncio.create_task(self._beat())
        serving = asyncio.create_task(self._serve())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving
        finally:
            given_up = len(self._tasks)
            for task in (serving, stopping, *self._tasks):
                task.cancel()
            await asyncio.gather(serving, stopping, *self._tasks, return_exceptions=True)
            await self._end(beating, given_up)

    def _stopped(self, number: int) -> None:
        self.stopped_by = number
        self._stop.set()

    async def _end(self, beating: asyncio.Task[None], given_up: int) -> None:
        """Write the last results and announce the end. Unfinished requests are then free for other jobs."""
        await self._client.close()
        await asyncio.to_thread(self._write_last)
        self._num_waiting += given_up
        self._ends.set()
        await beating  # A thread that still writes "serving" must not write it after "ended".
        await asyncio.to_thread(self._show_life, "ended")
        self._say(f"{self._num_judged} judged, {self._num_waiting} wait{self._elsewhere}")

    async def _serve(self) -> None:
        await self._open()
        while True:
            if not self._client.alive and not self._tasks:
                await self._open()
            for asked, request in await asyncio.to_thread(self._look):
                task = asyncio.create_task(self._judge(asked, request))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            if self._tasks:
                done, _ = await asyncio.wait(self._tasks, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # An error in this job ends it, which frees its requests.
            elif not self._unwritten and self._is_over:
                return
            else:
                await asyncio.sleep(POLL_S)

    async def _open(self) -> None:
        """Start the service. Raises UserError if device or sandbox is missing, and InfraError."""
        if self._losses >= MAX_LOSSES_IN_A_ROW:
            raise InfraError(
                f"the evaluation service died {self._losses} times without a result in between; "
                f"{self._client.log} says why. The spool's requests are left to other jobs."
            )
        self._losses += 1
        info = await self._client.open()
        if not info.is_isolated:
            said = f"{NO_SANDBOX.format(isolation=info.isolation)} {SANDBOX_REMEDY}"
            if not self._options.no_sandbox:
                raise UserError(said)
            self._say(said)
        self._at_once = AT_ONCE if info.is_cuda else AT_ONCE_ON_A_CPU
        self._requests.device = info.device
        self._info = info
        self._say(f"{info.device} drains {self._folder} as {self._name}")

    def _look(self) -> list[tuple[Asked, EvalRequest | ProfileRequest]]:
        """Write the results, read new requests, and take as many as there is room for. Raises InfraError."""
        with self._using:
            return [] if self._has_ended else self._looked()

    def _looked(self) -> list[tuple[Asked, EvalRequest | ProfileRequest]]:
        if time.monotonic() >= self._next_try:
            self._trouble = ""
        self._write()
        taken: list[tuple[Asked, EvalRequest | ProfileRequest]] = []
        try:
            self._requests.look()
            if self._client.alive and not self._is_closing and time.monotonic() >= self._next_try:
                while len(self._tasks) + len(taken) < self._at_once and (next_one := self._requests.take()):
                    taken.append(next_one)
            self._num_waiting = self._requests.num_waiting
            self._num_elsewhere = self._requests.num_elsewhere
        except OSError as error:
            if not self._folder.is_dir():
                raise InfraError(f"{self._folder} is gone: {error}") from error
            self._pause(f"{self._folder} cannot be used: {error}")
        return taken

    def _pause(self, trouble: str) -> None:
        self._trouble = f"{trouble}; it is tried again every {PAUSE_S:g} s"
        self._complaints(self._trouble)
        self._next_try = time.monotonic() + PAUSE_S

    async def _judge(self, asked: Asked, request: EvalRequest | ProfileRequest) -> None:
        """Judge one request and queue the answer for writing. A cancelled request is free for other jobs."""
        answer: Mapping[str, Any]
        try:
            if isinstance(request, ProfileRequest):
                answer = {"profile": codec.encode(await self._client.profile(request))}
            else:
                answer = {"result": codec.encode(await self._client.evaluate(request))}
        except UserError as error:
            answer = {"user_error": str(error), "device": self._requests.device}
        except InfraError as error:
            # If a signal ends both service and job, this task is cancelled here and the request stays free.
            await asyncio.sleep(POLL_S)
            answer = {"infra_error": str(error)}
        else:
            self._losses = 0
        self._unwritten.append((asked, answer))

    def _write_last(self) -> None:
        with self._using:
            self._has_ended, self._next_try = True, 0.0
            self._write()
            self._results.close()

    def _write(self) -> None:
        """Write the queued answers. If the disk is full, keep them and try again later."""
        if time.monotonic() < self._next_try:
            return
        while self._unwritten:
            asked, answer = self._unwritten[0]
            if not self._requests.is_done(asked):
                try:
                    self._results.append({"id": asked.id, "job": self._name, **answer})
                except InfraError as error:
                    self._pause(str(error))
                    return
                self._num_judged += 1
            self._unwritten.popleft()

    async def _beat(self) -> None:
        while not self._ends.is_set():
            await asyncio.to_thread(self._show_life, "serving" if self._info else "starting")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ends.wait(), BEAT_S)

    def _show_life(self, state: JobState) -> None:
        job = Job(
            name=self._name,
            host=self._host,
            pid=os.getpid(),
            device=self._info.device if self._info else "",
            boot=self._info.boot if self._info else "",
            isolation=self._info.isolation if self._info else "",
            state=state,
            started=self._started,
            time=time.time(),
            beat=next(self._beats),
            judged=self._num_judged,
            waiting=self._num_waiting,
            elsewhere=self._num_elsewhere,
            trouble="; ".join(filter(None, (self._trouble, self._unreadable.latest))),
            phases=self._client.phases,
        )
        try:
            show_life(self._folder, job)
        except OSError as error:
            self._complaints(f"cannot write the sign of life of {self._name}: {error}")

    @property
    def _is_closing(self) -> bool:
        return time.monotonic() >= self._deadline

    @property
    def _is_over(self) -> bool:
        return self._is_closing or (self._options.once and not self._requests.num_left)

    @property
    def _elsewhere(self) -> str:
        devices = self._requests.wanted_devices()
        if not devices:
            return ""
        return f", {self._num_elsewhere} of them for another device: {', '.join(devices)}"


def main(folder: Path, client: ServiceClient, options: Options) -> int:
    """Drain `folder` with `client`'s device. Return the exit code."""

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    async def drained() -> int:
        drain = Drain(folder, client, options, say)
        await drain.run()
        return 128 + drain.stopped_by if drain.stopped_by else 0

    try:
        return asyncio.run(drained())
    except (UserError, InfraError) as error:
        say(f"Error: {error}")
        return USER_ERROR if isinstance(error, UserError) else INFRA_ERROR
