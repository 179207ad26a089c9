"""The service's client: it starts the service, sends many requests at once and notices its end. No torch."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import kbopt
from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest, Result, TaskReport
from kbopt.core.ports import Phase
from kbopt.core.profile import Profiled, ProfileRequest
from kbopt.evaluation.messages import ServiceInfo
from kbopt.evaluation.sandbox.confinement import LOG_NAME, scrubbed

_LINE_LIMIT_BYTES = 64 * 2**20
"""Bytes of a line from the service at most, as of a message between its processes."""
_CLOSE_S = 5.0
"""Seconds for the service to end by itself before it is killed."""
_STDERR_LINES = 50
"""Lines of the service's standard error that an error tells: a Python traceback has fewer."""
_LOG_BYTES = 2 * 2**20
"""Bytes of the log at most. One older log of the same size is kept."""


class ServiceClient:
    """One evaluation service as a child process.

    Any number of calls of `evaluate`, `describe` and `profile` may run at once. When the service dies, all of
    them raise InfraError, and `open` may be called again. `memory_gib` limits its host memory (None: what its
    container or machine has). It runs on `cores` (none: all cores of this process). Its output goes to the
    file `log`, of which a few MiB are kept. `phases` counts its requests in each phase.
    """

    def __init__(
        self,
        *,
        device: str = "auto",
        state_dir: Path,
        python: str = sys.executable,
        memory_gib: float | None = None,
        cores: Sequence[int] = (),
    ) -> None:
        self.log = state_dir / LOG_NAME
        self._memory_gib = memory_gib
        self._cores = cores
        self._device = device
        self._state_dir = state_dir
        self._python = python
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self.phases: Mapping[Phase, int] = {}

    @property
    def alive(self) -> bool:
        """Whether the service has been started and has not been seen to end."""
        return self._process is not None and self._process.returncode is None

    async def open(self) -> ServiceInfo:
        """Start the service and wait until it can evaluate. Raises UserError or InfraError."""
        await self.close()
        package_root = Path(kbopt.__file__).resolve().parents[1]
        environ = {
            **scrubbed(os.environ),
            "PYTHONPATH": str(package_root),
            # A second thread in the fork server would not survive its forks.
            "OPENBLAS_NUM_THREADS": "1",
        }
        arguments = ["--device", self._device, "--state-dir", str(self._state_dir)]
        if self._memory_gib is not None:
            arguments += ["--memory-gib", f"{self._memory_gib:g}"]
        if self._cores:
            arguments += ["--cores", ",".join(map(str, self._cores))]
        self._process = await asyncio.create_subprocess_exec(
            *(self._python, "-P", "-m", "kbopt.evaluation", "serve", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environ,
            start_new_session=True,
            limit=_LINE_LIMIT_BYTES,
        )
        self._tasks = [asyncio.create_task(self._keep_stderr(self._process))]
        ready = await self._first_message(self._process)
        self._tasks.append(asyncio.create_task(self._read_answers(self._process)))
        return codec.decode(ServiceInfo, ready)

    async def evaluate(self, request: EvalRequest) -> Result:
        """Judge one source. Raises UserError for a task that cannot be scored, and InfraError."""
        result: Result = await self._ask("evaluate", request, Result)
        return result

    async def describe(self, request: EvalRequest) -> TaskReport:
        """Return whether the request's task can be scored, and what that takes. Raises InfraError."""
        report: TaskReport = await self._ask("describe", request, TaskReport)
        return report

    async def profile(self, request: ProfileRequest) -> Profiled:
        """Profile one source. Raises UserError for a task that cannot be scored, and InfraError."""
        profiled: Profiled = await self._ask("profile", request, Profiled)
        return profiled

    async def _ask(self, kind: str, request: EvalRequest | ProfileRequest, expected: Any) -> Any:
        process = self._process
        if process is None or process.stdin is None or process.returncode is not None:
            raise InfraError("the evaluation service is not running; open() starts it")
        number = next(self._numbers)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        message = {"id": number, "kind": kind, "request": codec.encode(request)}
        line = json.dumps(message, separators=(",", ":")) + "\n"
        try:
            process.stdin.write(line.encode())
            with contextlib.suppress(ConnectionError):
                await process.stdin.drain()
            return codec.decode(expected, await future)
        except codec.CodecError as error:
            raise InfraError(f"the evaluation service's answer cannot be read: {error}") from None
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        """End the service and its processes. Calls that are running raise InfraError."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _CLOSE_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        if self._tasks:
            # The pipes close with the service's last process, which may end a moment later than the service.
            await asyncio.wait(self._tasks, timeout=_CLOSE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self._fail_waiting("the evaluation service was closed")

    async def _first_message(self, process: asyncio.subprocess.Process) -> Any:
        assert process.stdout is not None
        line = await process.stdout.readline()
        message = json.loads(line) if line else {}
        if "ready" in message:
            return message["ready"]
        await self.close()
        if "user_error" in message:
            raise UserError(message["user_error"])
        detail = message.get("infra_error") or "\n".join(self._stderr)
        raise InfraError(
            f"the evaluation service did not start: {detail}; {self.log} has all that it printed"
        )

    async def _read_answers(self, process: asyncio.subprocess.Process) -> None:
        """Read answers until the service ends or sends an unreadable line. Then all open calls fail."""
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                self._take_answer(json.loads(line))
        except (ValueError, LookupError) as error:  # Not JSON, too long, or not an answer.
            process.kill()
            self._fail_waiting(f"the evaluation service said what cannot be read: {error!r}")
        code = await process.wait()
        tail = "\n".join(list(self._stderr)[-5:])
        self._fail_waiting(
            f"the evaluation service ended with code {code}; {self.log} has what it printed. {tail}".strip()
        )

    def _take_answer(self, message: Any) -> None:
        if "phases" in message:
            self.phases = codec.decode(Mapping[Phase, int], message["phases"])
            return
        future = self._waiting.get(message["id"])
        if future is None or future.done():
            return
        if "answer" in message:
            future.set_result(message["answer"])
        elif "user_error" in message:
            future.set_exception(UserError(message["user_error"]))
        else:
            future.set_exception(InfraError(message["infra_error"]))

    async def _keep_stderr(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        self.log.parent.mkdir(parents=True, exist_ok=True)
        log = RotatingFileHandler(self.log, maxBytes=_LOG_BYTES, backupCount=1, errors="replace", delay=True)
        log.setFormatter(logging.Formatter(f"%(asctime)s service {process.pid}: %(message)s"))
        with contextlib.closing(log):
            while line := await process.stderr.readline():
                text = line.decode(errors="replace").rstrip()
                self._stderr.append(text)
                log.emit(logging.makeLogRecord({"msg": text}))

    def _fail_waiting(self, reason: str) -> None:
        self.phases = {}
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(InfraError(reason))
