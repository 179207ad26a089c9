"""A backend for devices without a network: it writes requests to a shared folder, and jobs answer them there.

The jobs run `python -m kbopt.evaluation drain DIR`. Keys of language models stay on this machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kbopt.backends.awaiting import in_order, summed
from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest, Result
from kbopt.core.ports import BackendState, BackendStatus
from kbopt.core.profile import Profiled, ProfileRequest
from kbopt.evaluation.spool.files import (
    POLL_S,
    REQUESTS,
    RESULTS,
    SAME_VERSION,
    AppendOnly,
    Complaints,
    Say,
    Tails,
    open_spool,
    request_id,
)
from kbopt.evaluation.spool.jobs import BEAT_S, Job, JobWatch

DEFAULT_AHEAD = 16
"""Requests in the folder for each job: as many as a job on a GPU claims."""

OPEN_S = 3 * BEAT_S
"""Seconds for which `open` waits for a job that drains the spool."""

SILENCE_S = 60.0
"""Seconds without a heartbeat after which a job does not count as serving."""

REMIND_S = 60.0
OWNER = "spool-owner"


def kept_owner(folder: Path) -> str:
    """Return the owner name of the run in `folder`, and create it if necessary. Raises InfraError.

    A file in the run's folder holds the name. So a run that is resumed on another machine keeps it, and
    another run in a folder of the same path gets another one.
    """
    path = folder / OWNER
    try:
        if not path.exists():
            draft = path.with_name(f".{OWNER}.{uuid.uuid4().hex}")
            draft.write_text(uuid.uuid4().hex)
            with suppress(FileExistsError):
                os.link(draft, path)  # Unlike a rename, this never replaces another driver's file.
            draft.unlink()
        return path.read_text().strip()
    except OSError as error:
        raise InfraError(f"cannot write {path}: {error}") from error


def drain_command(folder: Path, device: str = "auto") -> str:
    """Return the command to start on the machine with the GPU."""
    words = ["python", "-m", "kbopt.evaluation", "drain", str(folder), "--minutes", "55"]
    return shlex.join(words + (["--device", device] if device != "auto" else []))


@dataclass(frozen=True, slots=True)
class _Answer:
    """The place of an answer in a file of results.

    `device` made it, or is "" for what is neither a result nor the refusal of a task.
    """

    path: Path
    number: int
    offset: int
    device: str
    is_refusal: bool

    @property
    def place(self) -> str:
        return f"{self.path}, line {self.number}"


class SpoolBackend:
    """Implements the Backend port with a folder that any number of jobs drain.

    A request that the same `owner` wrote before is not judged again: its result is used, or awaited if a job
    still works on it. So a driver that was killed and starts again loses nothing. A request that one driver
    makes twice is judged twice. All results of an owner come from one device: that of its first result, or
    else of a job that served when this was opened. With `keeps_refusals` a task that a job refused before
    this was opened stays refused; else it is asked for again. `ahead` requests are written for each job.
    Those that an earlier driver left without an answer come on top, lest what has one is not read. Results
    are read every `poll_s` seconds. While no job drains the spool, `say` tells the user each minute what to
    start.
    """

    max_batch = 1

    def __init__(
        self,
        folder: Path,
        *,
        owner: str = "",
        device: str = "auto",
        ahead: int = DEFAULT_AHEAD,
        keeps_refusals: bool = False,
        poll_s: float = POLL_S,
        say: Say | None = None,
    ) -> None:
        self._folder = folder.absolute()
        self._owner = owner or uuid.uuid4().hex
        self._wanted_device = device
        self._keeps_refusals = keeps_refusals
        self.max_in_flight = self._ahead = ahead
        self._poll_s = poll_s
        self._say = say or partial(print, file=sys.stderr, flush=True)
        self._complaints = Complaints(self._say)
        self._watch = JobWatch(self._folder, self._complaints, takeover_s=SILENCE_S)
        self._results = Tails(self._folder / RESULTS, self._complaints)
        self._mine = Tails(self._folder / REQUESTS, self._complaints)
        self._asking = self._new_file()
        self._askings: Counter[str] = Counter()
        self._asked: set[str] = set()
        self._left: set[str] = set()  # By an earlier driver: evaluations without an answer.
        self._answers: dict[str, _Answer] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._alive: tuple[Job, ...] = ()
        self._last: Job | None = None
        self._device = ""
        self._opening, self._writing = asyncio.Lock(), asyncio.Lock()
        self._polling: asyncio.Task[None] | None = None
        self._reminded = -REMIND_S
        self._failure = ""

    async def open(self) -> BackendStatus:
        """Open the spool. Where its device is not known yet, wait shortly for a job that drains it.

        Raises UserError for a folder that is no spool and cannot become one.
        """
        async with self._opening:
            if self._polling is None:
                await asyncio.to_thread(self._start)
                self._polling = asyncio.create_task(self._poll())
                deadline = time.monotonic() + OPEN_S
                while not (self._device or self._serving) and time.monotonic() < deadline:
                    await asyncio.sleep(min(self._poll_s, BEAT_S))
                self._device = self._device or next((job.device for job in self._serving), "")
        return await self.status()

    async def evaluate(self, requests: Sequence[EvalRequest]) -> list[Result]:
        """Return the results in the order of the requests. It waits for jobs without a limit."""
        await self.open()
        return await in_order(map(self._evaluate, requests))

    async def profile(self, request: ProfileRequest) -> Profiled:
        """Profile one source by a job. Unlike a result, a profile is asked for again after a restart."""
        await self.open()
        return await asyncio.to_thread(self._read_profile, await self._answer_to(request))

    async def status(self) -> BackendStatus:
        serving = self._serving
        return BackendStatus(
            state=self._state,
            device=self._device or next((job.device for job in serving), ""),
            boot=", ".join(job.boot for job in serving),
            age_s=max((time.time() - job.started for job in serving), default=0.0),
            detail=self._detail,
            phases=summed(job.phases for job in serving),
        )

    async def close(self) -> None:
        """Stop reading results. Requests stay in the folder, and jobs may still answer them."""
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)
            self._polling = None
        self._fail(InfraError("the spool was closed before it answered"))
        self._asking.close()

    def _start(self) -> None:
        """Read this owner's earlier requests and their answers."""
        open_spool(self._folder, create=True)
        self._asking = self._new_file()
        for line in self._mine.new():
            if line.fields.get("owner") == self._owner:
                name, request = str(line.fields.get("id")), line.fields.get("request")
                self._asked.add(name)
                if isinstance(request, dict) and request.get("type") == EvalRequest.__name__:
                    self._left.add(name)
                self._device = str(line.fields.get("device", "")) or self._device
        self._look()

    async def _evaluate(self, request: EvalRequest) -> Result:
        return await asyncio.to_thread(self._read, await self._answer_to(request))

    async def _answer_to(self, request: EvalRequest | ProfileRequest) -> _Answer:
        name = self._next_asking(request)
        if name not in self._answers and name not in self._asked:
            self._asked.add(name)
            fields = {"id": name, "owner": self._owner, "device": self._device}
            async with self._writing:  # In the order of asking: two threads might take the lines otherwise.
                await asyncio.to_thread(self._asking.append, {**fields, "request": codec.encode(request)})
        if name not in self._answers:
            self._waiting[name] = asyncio.get_running_loop().create_future()
            try:
                await self._waiting[name]
            finally:
                del self._waiting[name]
        return self._answers[name]

    def _next_asking(self, request: EvalRequest | ProfileRequest) -> str:
        """Return the next id of `request`. Ids whose answer before a restart is not kept are skipped."""
        content = request_id(self._owner, request, 0)
        while True:
            name = request_id(self._owner, request, self._askings[content])
            self._askings[content] += 1
            answer = self._answers.get(name)
            if answer is None or (
                answer.device
                and answer.device == self._device
                and (self._keeps_refusals or not answer.is_refusal)
            ):
                return name

    def _read(self, answer: _Answer) -> Result:
        """Read the result of an answer. Raises the UserError or InfraError that the job had."""
        result: Result = self._read_as(answer, "result", Result)
        if result.device != self._device:
            raise InfraError(
                f"{answer.place} was judged on {result.device}, and this search is on {self._device}: it is "
                "asked again"
            )
        return result

    def _read_profile(self, answer: _Answer) -> Profiled:
        profiled: Profiled = self._read_as(answer, "profile", Profiled)
        return profiled

    def _read_as(self, answer: _Answer, name: str, kind: Any) -> Any:
        try:
            with answer.path.open("rb") as file:
                file.seek(answer.offset)
                fields = json.loads(file.readline())
            if "user_error" in fields:
                raise UserError(fields["user_error"])
            if "infra_error" in fields:
                raise InfraError(fields["infra_error"])
            return codec.decode(kind, fields[name])
        except (OSError, ValueError, LookupError) as error:
            raise InfraError(f"{answer.place}: the result cannot be read: {error}. {SAME_VERSION}") from None

    async def _poll(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._look)
                self._failure = ""
            except OSError as error:
                self._failure = f"cannot read the spool {self._folder}: {error}"
                if not self._folder.is_dir():
                    self._asking = self._new_file()
                    self._fail(InfraError(self._failure))
            for name, future in self._waiting.items():
                if name in self._answers and not future.done():
                    future.set_result(None)
            self._remind()
            await asyncio.sleep(self._poll_s)

    def _look(self) -> None:
        """Read new heartbeats and results. Raises OSError if the spool cannot be read."""
        self._watch.look()
        self._alive, self._last = self._watch.alive, self._watch.last
        for line in self._results.new():
            name = line.fields.get("id")
            if name in self._asked and name not in self._answers:
                result = line.fields.get("result")
                device = str((result if isinstance(result, dict) else line.fields).get("device", ""))
                self._device = self._device or device
                is_refusal = "user_error" in line.fields
                self._answers[name] = _Answer(line.path, line.number, line.offset, device, is_refusal)
        self._left -= self._answers.keys()
        self.max_in_flight = self._ahead * max(1, len(self._serving)) + len(self._left)

    def _fail(self, error: InfraError) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)

    def _new_file(self) -> AppendOnly:
        return AppendOnly(self._folder / REQUESTS / f"{self._owner}.{uuid.uuid4().hex}.jsonl")

    def _remind(self) -> None:
        now = time.monotonic()
        if self._waiting and self._state in ("waiting", "failed") and now - self._reminded >= REMIND_S:
            self._reminded = now
            self._say(self._detail)

    @property
    def _serving(self) -> list[Job]:
        """The jobs that serve and have this owner's device."""
        return [job for job in self._alive if job.state == "serving" and self._device in ("", job.device)]

    @property
    def _state(self) -> BackendState:
        if self._polling is None:
            return "closed"
        if self._failure:
            return "failed"
        if self._serving:
            return "warm"
        return "starting" if any(job.state == "starting" for job in self._alive) else "waiting"

    @property
    def _detail(self) -> str:
        said = [self._failure or self._about_jobs()]
        others = sorted({job.device for job in self._alive} - {self._device, ""})
        if self._device and others:
            said.append(
                f"jobs on {', '.join(others)} judge nothing of this search, which is on {self._device}"
            )
        said += sorted({f"{job.name} says: {job.trouble}" for job in self._alive if job.trouble})
        return "; ".join(said)

    def _about_jobs(self) -> str:
        number = len(self._waiting)
        waiting = "1 request waits" if number == 1 else f"{number} requests wait"
        serving = self._serving
        if serving:
            hosts = ", ".join(sorted({job.host for job in serving}))
            return f"{waiting} for {len(serving)} job{'s' * (len(serving) > 1)} on {hosts}"
        if starting := [job.host for job in self._alive if job.state == "starting"]:
            return f"{waiting} for a job that is starting on {starting[0]}"
        last = self._last
        seen = f" since {time.strftime('%H:%M', time.localtime(last.time))} ({last.host})" if last else ""
        command = drain_command(self._folder, self._wanted_device)
        return f"{waiting} in {self._folder}, which no job drains{seen}. Where the GPU is: {command}"
