"""The supervisor's handles on the fork server and on the processes that it forked."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from kbopt.core import codec
from kbopt.core.errors import InfraError
from kbopt.core.outcomes import Crashed
from kbopt.evaluation.messages import Done, Survey, Warm
from kbopt.evaluation.sandbox import forks
from kbopt.evaluation.sandbox.confinement import LOG_NAME, SandboxConfig
from kbopt.evaluation.sandbox.memory import Host, KilledForMemory, find_host
from kbopt.evaluation.transport.channel import Channel, ChannelClosed, WireError
from kbopt.evaluation.transport.untrusted import clean

T = TypeVar("T", bound=forks.FromForkServer)

_FORK_SERVER_START_S = 120.0
"""Seconds for the fork server to import torch and probe the isolation."""
_FORK_SERVER_ANSWER_S = 30.0
"""Seconds for the fork server to answer a request. To fork takes it tens of milliseconds (decision 20)."""
_END_S = 5.0
"""Seconds for an ended sandbox to report, and for its output to end."""
_WARM_UP_S = 30.0
"""Seconds for a worker to create its CUDA context and load its build."""
_REAPED_S = 3.0
"""Seconds for the fork server to notice the end of a process."""
_REAPED_LOOK_S = 0.1
"""Seconds between two questions whether it has noticed."""
_REPLY_LIMIT_BYTES = 2**20
"""Bytes of a child's answer to the supervisor at most."""
_LOG_HEAD_BYTES = 4_000
_LOG_TAIL_BYTES = 12_000
"""Bytes of a sandbox's output that are kept from its start and its end."""


class ForkServerHandle:
    """A running fork server. Thread-safe: requests are answered one at a time.

    `device` is the device that the service was asked for. `survey` is the channel to the process that looks
    for it. `log` is the file with the output of the fork server and its trusted processes. `host` counts the
    processes that the kernel kills for memory.
    """

    def __init__(
        self,
        state_dir: Path,
        environ: Mapping[str, str],
        *,
        device: str = "cpu",
        host: Host | None = None,
    ) -> None:
        self.log = state_dir / LOG_NAME
        self.host = host or find_host()
        self._channel, theirs = Channel.pair()
        self.survey, of_survey = Channel.pair()
        self.survey.send(Survey(device=device))
        self._lock = threading.Lock()
        with theirs, of_survey:
            fds = [theirs.fileno(), of_survey.fileno()]
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "kbopt.evaluation.fork_server", str(state_dir)),
                    *("cpu" if device == "cpu" else "cuda", *map(str, fds)),
                ],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                env=dict(environ),
            )
        try:
            ready: forks.ForkServerReady = self._channel.receive(forks.ForkServerReady, _FORK_SERVER_START_S)
        except (ChannelClosed, TimeoutError):
            self.close()
            raise InfraError(
                f"the evaluation's fork server did not start; {self.log} has its output"
            ) from None
        self.pid = self._process.pid
        self.isolation = ready.isolation
        self.isolates = ready.is_whole

    def request(self, message: forks.ToForkServer, expected: type[T], fds: Sequence[int] = ()) -> T:
        """Return the answer to a request. Raises InfraError."""
        with self._lock:
            try:
                self._channel.send(message, fds)
                answer = self._channel.receive(forks.FromForkServer, _FORK_SERVER_ANSWER_S)
            except (ChannelClosed, TimeoutError):
                raise InfraError(f"the evaluation's fork server is gone; {self.log} has its output") from None
        if isinstance(answer, forks.NotSpawned):
            raise InfraError(answer.reason)
        if not isinstance(answer, expected):
            raise TypeError(f"{answer} is no answer to {message}")
        return answer

    def spawn_judge(self) -> tuple[Channel, int]:
        """Start a judge, a trusted process. Return the channel to it and its pid."""
        channel, theirs = Channel.pair()
        with theirs:
            spawned = self.request(forks.SpawnJudge(), forks.Spawned, [theirs.fileno()])
        return channel, spawned.pid

    def set_environment(self, variables: Mapping[str, str]) -> None:
        """Set variables for trusted processes that start later. Sandboxes get theirs by `SandboxConfig`."""
        self.request(forks.SetEnvironment(variables=variables), Done)

    def kill(self, pid: int) -> None:
        with contextlib.suppress(InfraError):
            self.request(forks.Kill(pid=pid), Done)

    def exit_code(self, pid: int) -> int | None:
        """Return the exit code, negative for a signal, of a process that `kill` did not end.

        Wait `_REAPED_S` s for its end, and return None if it does not end by then.
        """
        until = time.monotonic() + _REAPED_S
        while time.monotonic() < until:
            code = self.request(forks.AskExit(pid=pid), forks.Exit).code
            if code is not None:
                return code
            time.sleep(_REAPED_LOOK_S)
        return None

    def close(self) -> None:
        self.survey.close()
        self._channel.close()
        self._process.terminate()
        self._process.wait()


class Child:
    """A sandbox with one process in it, in the given role.

    `data` and `control` are sockets to that process and to the sandbox's init process. `close` ends
    everything in the sandbox, and `end` returns the init process's report.
    """

    def __init__(self, fork_server: ForkServerHandle, role: forks.Role, config: SandboxConfig) -> None:
        self._fork_server = fork_server
        self._kills = fork_server.host.num_kills()
        self.data, data_theirs = socket.socketpair()
        self.control, control_theirs = socket.socketpair()
        self._status_fd, status_theirs = os.pipe()
        output_fd, output_theirs = os.pipe()
        theirs = [data_theirs.fileno(), control_theirs.fileno(), status_theirs, output_theirs]
        try:
            spawned = fork_server.request(forks.SpawnSandbox(role=role, config=config), forks.Spawned, theirs)
            self.init_pid = spawned.pid
        finally:
            data_theirs.close()
            control_theirs.close()
            os.close(status_theirs)
            os.close(output_theirs)
        self._log = _Log(output_fd)

    def ask(self, message: object, limit_s: float) -> Any:
        """Send a message and return the answer as it came, for `transport.untrusted` to decode.

        Raises TimeoutError, ChannelClosed and WireError.
        """
        channel = Channel(self.data, _REPLY_LIMIT_BYTES, max_fds=0)
        channel.send(message)
        return channel.receive_json(limit_s)

    @property
    def log(self) -> str:
        return self._log.text

    @property
    def fds(self) -> tuple[int, int]:
        return self.data.fileno(), self.control.fileno()

    def close(self) -> None:
        """Kill all processes in the sandbox and release everything. A second call does nothing."""
        if self._status_fd < 0:
            return
        self.data.close()
        self.control.close()
        self._fork_server.kill(self.init_pid)
        os.close(self._status_fd)
        self._status_fd = -1
        self._log.join()

    def end(self) -> forks.Ended:
        """Return how the child ended. Call it once the end was noticed; it waits for the report."""
        timer = threading.Timer(_END_S, self._fork_server.kill, [self.init_pid])
        timer.start()
        with os.fdopen(os.dup(self._status_fd)) as pipe:
            line = pipe.readline()
        timer.cancel()
        return codec.loads(forks.Ended, line) if line else forks.Ended()

    def crash(self) -> Crashed:
        """Return the outcome of a child that ended before it answered.

        Raises KilledForMemory if the kernel may have killed it because the machine ran out of memory.
        """
        ended = self.end()
        is_unseen = ended in (forks.Ended(how="killed"), forks.Ended(how="gone"))
        if (is_unseen or ended.signal == signal.SIGKILL) and self.has_seen_kills:
            raise KilledForMemory("a candidate's process", of_judge=False)
        return crash_from(ended)

    @property
    def has_seen_kills(self) -> bool:
        """Whether the kernel has killed any process for memory since this one was started."""
        return self._fork_server.host.num_kills() > self._kills


def warm_up(children: Sequence[Child], device: str, setup: str = "", *, triton: bool = False) -> None:
    """Have the children create their CUDA contexts, load their builds and, with `triton`, Triton's driver.

    A child that dies in it is no error here: its next user notices.
    """
    for child in children:
        with contextlib.suppress(ChannelClosed, TimeoutError, WireError):
            Channel(child.data).send(Warm(device=device, setup=setup, triton=triton))
    for child in children:
        with contextlib.suppress(ChannelClosed, TimeoutError, WireError):
            Channel(child.data, max_fds=0).receive_json(_WARM_UP_S)


class _Log:
    """Reads a pipe to its end in a thread and keeps the first and the last bytes of it."""

    def __init__(self, fd: int) -> None:
        self._head = b""
        self._tail = b""
        self._dropped = 0
        self._thread = threading.Thread(target=self._drain, args=(fd,), daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        middle = f"\n[{self._dropped} bytes left out]\n".encode() if self._dropped else b""
        text = (self._head + middle + self._tail).decode(errors="replace")
        return clean(text, len(text))

    def join(self) -> None:
        self._thread.join(_END_S)

    def _drain(self, fd: int) -> None:
        while data := os.read(fd, 2**20):
            room = _LOG_HEAD_BYTES - len(self._head)
            if room > 0:
                self._head += data[:room]
                data = data[room:]
            self._tail += data
            excess = max(0, len(self._tail) - _LOG_TAIL_BYTES)
            self._dropped += excess
            self._tail = self._tail[excess:]
        os.close(fd)


def signal_name(number: int) -> str:
    """Return `SIGKILL` for 9, and `signal N` for real-time signals, which Python does not name."""
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def crash_from(ended: forks.Ended) -> Crashed:
    """Return the outcome of a process that ended before it answered."""
    if ended.memory_bytes is not None:
        used = ended.memory_bytes / 2**30
        return Crashed(
            reason=f"its processes used {used:.1f} GiB of memory, more than allowed", how="out of memory"
        )
    if ended.signal is not None:
        name = signal_name(ended.signal)
        return Crashed(reason=f"its process was ended by {name}", how=name)
    if ended.exit is not None:
        return Crashed(
            reason=f"its process ended by itself with exit code {ended.exit} before it answered",
            how=f"exit {ended.exit}",
        )
    return Crashed(reason="its process ended before it answered", how=ended.how)
