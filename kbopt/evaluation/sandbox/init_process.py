"""The first process of a sandbox. It starts the untrusted child, pauses, resumes, limits and ends it.

In a PID namespace the init process is process 1: one `kill(-1)` reaches all other processes, and the kernel
kills them when process 1 ends (pid_namespaces(7)). Without a namespace it adopts orphans and walks the tree
of descendants instead.

It reads single bytes from its control socket (`STOP`, `HOLD`, `LOOK`, `CONTINUE`), answers each with a
`REPLY`, and writes one JSON line about the child's end to its status pipe.

`HOLD` proves that the sandbox is paused: every thread was seen stopped, and no process used processor time
meanwhile. `LOOK` proves that it still is. SIGSTOP alone is not enough: a signal that was sent before it, or
the end of a parent, can wake a process. `CONTINUE` checks nothing, because it is timed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

from kbopt.core import codec
from kbopt.evaluation.sandbox import confinement, linux, seccomp
from kbopt.evaluation.sandbox.confinement import Isolation, SandboxConfig
from kbopt.evaluation.sandbox.forks import Ended
from kbopt.evaluation.sandbox.seccomp import ProcessCounter, Starts
from kbopt.evaluation.transport.channel import ChannelClosed

STOP = b"S"
HOLD = b"H"
LOOK = b"L"
CONTINUE = b"C"
REPLY = struct.Struct("<cI?")
"""The command; how many processes were started and have ended, modulo 2**32; whether the pause holds."""
INPUT_BUFFER_BYTES = 512 * 2**20
"""Bytes allowed for inputs, which count as the child's memory once it has mapped them."""
_WATCH_INTERVAL_S = 0.1
"""Seconds between two looks at the memory of the sandbox."""
_STANDING_S = 5.0
"""Seconds in which all threads have to stop. A thread stops only once it gets a core."""
_AWAKE = {"R", "S"}
"""States of proc_pid_stat(5) in which a thread can continue by itself: running, and interruptible sleep."""
_WAITING = {"D"}
"""Uninterruptible sleep: a thread that waits for a page of a file, and runs on until it handles the signal;
or one that waits for its `vfork` child."""
_PAGE_S = 30.0
"""Seconds in which a page of a file has to come. One of a container's image that is loaded over a network as
it is used has taken more than half a second."""
_VFORK_S = 0.5
"""Seconds after which a process in such a sleep counts as stopped if it has a child: it may wait for that,
which is stopped itself, for as long as the pause takes."""
_ENDED = {"Z", "X"}
_LOOK_S = 0.0002
"""Seconds between two looks at the threads that should stop."""
_BROKEN = 70
"""Exit code if the body itself failed: EX_SOFTWARE of sysexits.h."""


class Ends(NamedTuple):
    """A sandbox's descriptors: `body` uses `data`, and what is printed goes to `output`."""

    data: int
    control: int
    status: int
    output: int


def run(
    config: SandboxConfig, isolation: Isolation, body: Callable[[], None], ends: Ends, *, is_build: bool
) -> NoReturn:
    """Set the sandbox up, run `body` in it, and watch until everything inside has ended.

    With `is_build` it does not count processes, because nothing is timed there.
    """
    linux.die_with_parent()
    os.setsid()
    reader = None if isolation.processes else os.getppid()
    keep = [
        *confinement.interpreter_paths(),
        *map(Path, config.readable),
        *(confinement.toolchain_paths(config.environ) if isolation.user_namespace else ()),
    ]
    scratch = _prepare(config, isolation, keep)
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        for fd in (ends.control, ends.status, ours.fileno()):
            os.close(fd)

        def confine() -> None:
            linux.allow_reader(reader)
            if isolation.calls:
                _refuse_calls(isolation, theirs, is_build=is_build)

        _run_child(config, isolation, scratch, body, confine, ends)
    for fd in (ends.data, ends.output, theirs.fileno()):
        os.close(fd)
    if not isolation.processes:
        linux.adopt_orphans()
    with ours:
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    report = _Watch(child, ends.control, config.memory_bytes, isolation, fds).until_the_end()
    _signal_all(isolation, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.write(ends.status, codec.packed(report) + b"\n")
    os._exit(0)


def _refuse_calls(isolation: Isolation, to_init: socket.socket, *, is_build: bool) -> None:
    starts: Starts = "free" if is_build else "counted" if isolation.counted else "unshared"
    listener = seccomp.refuse_calls(starts)
    if listener is not None:
        socket.send_fds(to_init, [b"L"], [listener])


def _prepare(config: SandboxConfig, isolation: Isolation, keep: list[Path]) -> Path:
    flags = linux.CLONE_NEWIPC | linux.CLONE_NEWNS if isolation.mounts else 0
    flags |= linux.CLONE_NEWNET if isolation.network else 0
    if flags:
        linux.unshare(flags)
    scratch, build_fd = Path(config.scratch_fallback), None
    if isolation.mounts:
        build_fd = os.open(config.build, os.O_PATH | os.O_DIRECTORY) if config.build else None
        confinement.mount_privately(config, keep, isolation)
        scratch = confinement.SCRATCH / "kbopt"
    scratch.mkdir(parents=True, mode=0o700)
    if isolation.user:
        os.chown(scratch, config.uid, config.uid)
    if build_fd is not None:
        confinement.place_build(config, build_fd, isolation)
        os.close(build_fd)
    if isolation.mounts and isolation.processes:
        linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV)
    return scratch


def _run_child(
    config: SandboxConfig,
    isolation: Isolation,
    scratch: Path,
    body: Callable[[], None],
    confine: Callable[[], None],
    ends: Ends,
) -> NoReturn:
    null_fd = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null_fd, 0), (ends.output, 1), (ends.output, 2)):
        os.dup2(source, target)
    os.setsid()
    confinement.prefer_for_oom_kill()
    confinement.apply_limits(config)
    os.umask(0o077)
    if isolation.user:
        confinement.become_nobody(config.uid, isolation)
    if isolation.user_namespace or os.geteuid() == 0:
        linux.drop_capabilities()
    linux.forbid_new_privileges()
    linux.show_memory_to_itself()
    linux.die_with_parent()
    confine()
    confinement.close_other_fds([ends.data])
    # Triton looked up its home folder when the template imported it, as another user.
    home = {"HOME": str(scratch), "TRITON_HOME": str(scratch), "TMPDIR": str(scratch), "USER": "nobody"}
    os.environ.clear()  # For C code too.
    os.environ.update({**config.environ, **home})
    os.chdir(scratch)
    try:
        body()
    except ChannelClosed:
        os._exit(0)
    except BaseException:  # noqa: BLE001 - the log is the only place where this can still be said
        traceback.print_exc()
    finally:
        os._exit(_BROKEN)


class _Watch:
    """Waits for the child's end. Until then it pauses and resumes the sandbox and limits its memory."""

    def __init__(
        self, child: int, control_fd: int, memory_bytes: int, isolation: Isolation, counter_fds: list[int]
    ) -> None:
        self._child = child
        self._control_fd = control_fd
        self._memory_bytes = memory_bytes
        self._isolation = isolation
        self._counter = ProcessCounter(counter_fds[0]) if counter_fds else None
        self._standing: dict[int, int] | None = None

    def until_the_end(self) -> Ended:
        os.set_blocking(self._control_fd, False)
        watch_at = time.monotonic()
        sources: list[int] = [self._control_fd]
        if self._counter is not None:
            sources.append(self._counter.fileno())
        while True:
            ended = _reap(self._child)
            if ended is not None:
                return ended
            ready, _, _ = select.select(sources, [], [], _WATCH_INTERVAL_S)
            if self._counter is not None and self._counter.fileno() in ready:
                self._counter.answer()
            if self._control_fd in ready:
                command = os.read(self._control_fd, 1)
                if not command:
                    return Ended(how="ended by the supervisor")
                os.write(self._control_fd, self._obey(command))
            if time.monotonic() >= watch_at:
                watch_at = time.monotonic() + _WATCH_INTERVAL_S
                used_bytes = sum(_own_bytes(pid) for pid in _others(self._isolation))
                if used_bytes > self._memory_bytes + INPUT_BUFFER_BYTES:
                    return Ended(memory_bytes=used_bytes)

    def _obey(self, command: bytes) -> bytes:
        if command in (STOP, CONTINUE):
            _signal_all(self._isolation, signal.SIGSTOP if command == STOP else signal.SIGCONT)
            return REPLY.pack(command, 0, False)
        if command == HOLD:
            self._standing = self._stand()
        pids = _others(self._isolation)
        holds = self._standing is not None and self._standing == _standing(pids)
        started = self._counter.started if self._counter is not None else len(pids) - 1
        return REPLY.pack(command, (started - (len(pids) - 1)) % 2**32, holds)

    def _stand(self) -> dict[int, int] | None:
        """Stop all processes. Return the nanoseconds that each has used, or None if some do not stop."""
        started = waited = time.monotonic()
        while (now := time.monotonic()) - started < _PAGE_S and now - waited < _STANDING_S:
            _signal_all(self._isolation, signal.SIGSTOP)
            pids = _others(self._isolation)
            clocks = _clocks(pids)
            states = {pid: linux.states(pid) for pid in pids}
            waiting = [pid for pid in pids if states[pid] & _WAITING]
            if now - started >= _VFORK_S:
                waiting = [pid for pid in waiting if not linux.descendants(pid)]
            is_awake = any(letters & _AWAKE for letters in states.values())
            if not is_awake and not waiting and clocks == _clocks(_others(self._isolation)):
                return {pid: used_ns for pid, used_ns in clocks.items() if states[pid] - _ENDED}
            if waiting:
                waited = now  # When its page has come, the thread runs until it handles the signal.
            time.sleep(_LOOK_S)
        return None


def _standing(pids: list[int]) -> dict[int, int] | None:
    """Return the processor time in nanoseconds of each process that has not ended.

    Return None if any of their threads is in a state in which it can continue by itself.
    """
    states = {pid: linux.states(pid) for pid in pids}
    if any(letters & _AWAKE for letters in states.values()):
        return None
    return _clocks([pid for pid, letters in states.items() if letters - _ENDED])


def _clocks(pids: list[int]) -> dict[int, int]:
    """Return the processor time in nanoseconds of each process that has not ended."""
    clocks: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            clocks[pid] = linux.process_cpu_ns(pid)
    return clocks


def _reap(child: int) -> Ended | None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return Ended(how="gone")
        if pid == 0:
            return None
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return Ended(signal=-code) if code < 0 else Ended(exit=code)


def _others(isolation: Isolation) -> list[int]:
    if isolation.processes and isolation.mounts:
        return [
            int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and path.name != "1"
        ]
    return linux.descendants(os.getpid())


def _signal_all(isolation: Isolation, number: int) -> None:
    if isolation.processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, number)
        return
    # A process that forks during a walk is found in the next one, so walk until nothing new is found.
    seen: set[int] = set()
    while new := set(linux.descendants(os.getpid())) - seen:
        for pid in new:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        seen |= new


def _own_bytes(pid: int) -> int:
    """Return the resident bytes that belong to no file: private and shared anonymous memory."""
    total_kib = 0
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                total_kib += int(line.split()[1])
    return total_kib * 1024
