"""The fork server: it has imported torch, stays single-threaded, never uses CUDA, and forks the others.

It answers the requests of `sandbox.forks`, one at a time. Threads do not survive a fork, so nothing here may
start one. Each child starts its own when it needs them.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from kbopt.core import codec
from kbopt.evaluation import preloading, survey
from kbopt.evaluation.build import machine_code
from kbopt.evaluation.judge import judge_process
from kbopt.evaluation.messages import Done
from kbopt.evaluation.sandbox import confinement, forks, init_process, linux
from kbopt.evaluation.sandbox.confinement import Isolation, SandboxConfig
from kbopt.evaluation.sandbox.init_process import Ends
from kbopt.evaluation.transport.channel import Channel, ChannelClosed
from kbopt.evaluation.worker import build_process, profile_process, worker_process

_REAP_INTERVAL_S = 0.5
"""Seconds between two looks for ended children while nothing is asked. Each request looks too, so this only
bounds how long an ended process keeps its entry in the kernel's table."""
_ROLES: dict[forks.Role, Callable[[Channel], None]] = {
    "build": build_process.build,
    "measure": worker_process.measure,
    "kernelbench": worker_process.kernelbench,
    "inspect": machine_code.inspect,
    "dissect": profile_process.dissect,
    "trace": profile_process.trace,
    "count": profile_process.count,
}


class ForkServer:
    """Forks processes on request. `isolation` is what the kernel granted a probe child."""

    def __init__(self, channel: Channel, isolation: Isolation) -> None:
        self._channel = channel
        self._isolation = isolation
        self._live: set[int] = set()
        self._killed: set[int] = set()
        self._ended: dict[int, int] = {}

    def serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._channel.fileno()], [], [], _REAP_INTERVAL_S)
            self._reap()
            if ready:
                request = self._channel.receive(forks.ToForkServer)
                self._channel.send(self._answer(request, self._channel.take_fds()))

    def _answer(self, request: forks.ToForkServer, fds: list[int]) -> forks.FromForkServer:
        match request:
            case forks.Kill(pid=pid):
                if pid in self._live:
                    self._killed.add(pid)
                    os.kill(pid, signal.SIGKILL)
                return Done()
            case forks.AskExit(pid=pid):
                return forks.Exit(code=self._ended.get(pid))
            case forks.SetEnvironment(variables=variables):
                os.environ.update(variables)
                return Done()
        try:
            if isinstance(request, forks.SpawnSandbox):
                pid = self._fork_sandbox(request, fds)
            else:
                pid = fork_trusted(judge_process.main, fds)
        except OSError as error:
            return forks.NotSpawned(reason=f"cannot start a process: {error}")
        finally:
            for fd in fds:
                os.close(fd)
        self._live.add(pid)
        self._ended.pop(pid, None)
        return forks.Spawned(pid=pid)

    def _fork_sandbox(self, request: forks.SpawnSandbox, fds: list[int]) -> int:
        role, ends = request.role, Ends(*fds)
        return _fork_sandbox(
            request.config,
            self._isolation.without(request.config.without),
            lambda: _ROLES[role](Channel(socket.socket(fileno=ends.data))),
            ends,
            is_build=role in ("build", "count"),  # ncu starts the process that it counts in.
        )

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
                pid, status = ended
                self._live.discard(pid)
                if pid in self._killed:
                    self._killed.discard(pid)
                else:
                    self._ended[pid] = os.waitstatus_to_exitcode(status)


def fork_trusted(role: Callable[[Channel], None], fds: list[int]) -> int:
    """Fork a process that runs `role` on the socket that is the first of `fds`. Return its pid."""
    pid = os.fork()
    if pid == 0:
        linux.die_with_parent()
        linux.hide_memory()
        confinement.prefer_for_oom_kill(confinement.OOM_TRUSTED)
        confinement.close_other_fds(fds)
        _run_and_exit(lambda: role(Channel(socket.socket(fileno=fds[0]))))
    return pid


def _fork_sandbox(
    config: SandboxConfig,
    isolation: Isolation,
    body: Callable[[], None],
    ends: Ends,
    *,
    is_build: bool = False,
    error_fd: int = 2,
) -> int:
    """Fork the init process of a sandbox that runs `body`, and return its pid. Raises OSError.

    That process prints on `error_fd` if it cannot set the sandbox up.
    """
    pid = _fork_init(isolation, config.uid)
    if pid == 0:
        os.dup2(error_fd, 2)
        confinement.close_other_fds(ends)
        _run_and_exit(lambda: init_process.run(config, isolation, body, ends, is_build=is_build))
    return pid


def _fork_init(isolation: Isolation, uid: int) -> int:
    """Fork the init process of a sandbox. Return its pid, and 0 in the new process. Raises OSError."""
    if isolation.user_namespace:
        return _fork_into_user_namespace(isolation, uid)
    if not isolation.processes:
        return os.fork()
    own = os.open("/proc/self/ns/pid", os.O_RDONLY)
    try:
        linux.unshare(linux.CLONE_NEWPID)
        pid = os.fork()
        if pid:
            linux.setns(own, linux.CLONE_NEWPID)
    finally:
        os.close(own)
    return pid


def _fork_into_user_namespace(isolation: Isolation, uid: int) -> int:
    """Do the same in a user namespace. A process cannot leave one, so another process enters it and forks.

    When that process ends, the init process becomes the fork server's child. Only then it continues: it asks
    to die with its parent, and that end would kill it.
    """
    pid_read, pid_write = os.pipe()
    go_read, go_write = os.pipe()
    between = os.fork()
    if between == 0:
        with contextlib.suppress(OSError):
            linux.become_user_namespace(uid)
            linux.unshare(linux.CLONE_NEWPID if isolation.processes else 0)
            first = os.fork()
            if first == 0:
                os.close(pid_write)
                os.close(go_write)
                if os.read(go_read, 1):
                    return 0
            else:
                os.write(pid_write, first.to_bytes(4, "little"))
        os._exit(0)
    os.close(pid_write)
    os.close(go_read)
    with os.fdopen(pid_read, "rb") as pipe, os.fdopen(go_write, "wb", buffering=0) as go:
        number = pipe.read()
        os.waitpid(between, 0)
        if not number:
            raise OSError(errno.EPERM, "no user namespace could be set up")
        go.write(b"G")
    return int.from_bytes(number, "little")


def _run_and_exit(body: Callable[[], None]) -> None:
    code = forks.RAISED
    try:
        body()
        code = 0
    except ChannelClosed:
        code = 0
    except Exception:  # noqa: BLE001 - a forked process must never return into the fork server's loop
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


def probe_isolation(scratch: str) -> Isolation:
    """Return the strongest isolation under which a probe child can import modules, fork and end."""
    spaces = {"processes": True, "mounts": True, "network": True}
    attempts: list[dict[str, bool]] = [{**spaces, "user": True}] if os.geteuid() == 0 else []
    attempts += [
        {**spaces, "user": True, "user_namespace": True},
        spaces,
        {"processes": True, "network": True},
        {"network": True},
        {},
    ]
    for attempt in attempts:
        for calls in ({"calls": True, "counted": True}, {"calls": True}, {}):
            isolation = Isolation(**attempt, **calls)
            if _survives(isolation, scratch):
                return isolation
    return Isolation()


def _survives(isolation: Isolation, scratch: str) -> bool:
    fallback = Path(scratch) / f"probe-{os.getpid()}"
    config = SandboxConfig(memory_bytes=2**40, environ={}, scratch_fallback=str(fallback), serial=0)
    status_read, status_write = os.pipe()
    control, control_theirs = socket.socketpair()
    data, data_theirs = socket.socketpair()
    null_fd = os.open(os.devnull, os.O_WRONLY)
    ends = Ends(data_theirs.fileno(), control_theirs.fileno(), status_write, null_fd)
    try:
        pid = _fork_sandbox(config, isolation, _import_lazily, ends, error_fd=null_fd)
    except OSError:
        return False
    os.close(status_write)
    with os.fdopen(status_read) as status:
        report = status.readline()
    os.waitpid(pid, 0)
    os.close(null_fd)
    for end in (control, control_theirs, data, data_theirs):
        end.close()
    with contextlib.suppress(OSError):
        fallback.rmdir()
    return bool(report) and codec.loads(forks.Ended, report) == forks.Ended(exit=0)


def _import_lazily() -> None:
    import xmlrpc.client  # noqa: F401 - any module that torch has not imported

    import torch.utils.cpp_extension  # noqa: F401

    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    os._exit(0)


def main() -> None:
    """Run the fork server. Its arguments are a folder for scratch files, `cpu` or `cuda`, the descriptors of
    the supervisor's socket and of the survey's, and modules that it must not import, separated by commas.
    """
    linux.die_with_parent()
    linux.hide_memory()
    linux.adopt_orphans()
    confinement.homes()
    scratch, device, fd, survey_fd, *left_out = sys.argv[1:]
    torch.set_num_threads(1)
    if not left_out:
        # To look for a GPU takes seconds, and so do the modules that are imported meanwhile.
        fork_trusted(survey.survey, [int(survey_fd)])
        os.close(int(survey_fd))
    skipped = left_out[0].split(",") if left_out else []
    if spoiler := preloading.preload(device, skipped):
        skipped.append(spoiler)
        os.execv(
            sys.executable,
            [
                *sys.orig_argv[: -len(sys.argv[1:])],
                *(scratch, device, fd, survey_fd, ",".join(skipped)),
            ],
        )
    sys.dont_write_bytecode = True  # from here on: children leave nothing beside what they import
    channel = Channel(socket.socket(fileno=int(fd)))
    isolation = probe_isolation(scratch)
    gc.collect()
    gc.freeze()
    channel.send(forks.ForkServerReady(isolation=str(isolation), is_whole=isolation.is_whole))
    with contextlib.suppress(ChannelClosed):
        ForkServer(channel, isolation).serve()


if __name__ == "__main__":
    main()
