"""The first process of a sandbox: starts the untrusted child, pauses, resumes, bounds and ends it.

In a process namespace of its own the warden is process 1: `kill(-1)` reaches every other process there at
one stroke, none can be started outside, and none survives it. Without namespaces it adopts orphans and
walks the tree of descendants instead.

It obeys single bytes on its control socket (`STOP`, `CONTINUE`, each acknowledged by the same byte) and
writes one JSON line about the child's end to its status pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from kbopt.evaluation import linux, sandbox
from kbopt.evaluation.sandbox import Isolation, SandboxConfig
from kbopt.evaluation.wire import ChannelClosed

STOP = b"S"
CONTINUE = b"C"
ARENA_BYTES = 512 * 2**20
"""Room for inputs, which count as the child's memory once it has mapped them."""
_WATCH_INTERVAL_S = 0.1
_BROKEN = 70


def run(
    config: SandboxConfig,
    isolation: Isolation,
    body: Callable[[], None],
    *,
    data_fd: int,
    control_fd: int,
    status_fd: int,
    output_fd: int,
) -> NoReturn:
    """Set the sandbox up, run `body` in it, and watch until everything inside has ended."""
    linux.die_with_parent()
    os.setsid()
    keep = [*sandbox.interpreter_paths(), *map(Path, config.readable)]
    scratch = _prepare(config, isolation, keep)
    child = os.fork()
    if child == 0:
        os.close(control_fd)
        os.close(status_fd)
        _run_child(config, isolation, scratch, body, data_fd=data_fd, output_fd=output_fd)
    os.close(data_fd)
    os.close(output_fd)
    if not isolation.processes:
        linux.adopt_orphans()
    report = _watch(child, control_fd, config.limits.memory_bytes, isolation)
    _signal_all(isolation, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.write(status_fd, json.dumps(report).encode() + b"\n")
    os._exit(0)


def _prepare(config: SandboxConfig, isolation: Isolation, keep: list[Path]) -> Path:
    flags = linux.CLONE_NEWIPC if isolation.mounts else 0
    flags |= linux.CLONE_NEWNS if isolation.mounts else 0
    flags |= linux.CLONE_NEWNET if isolation.network else 0
    if flags:
        linux.unshare(flags)
    if not isolation.mounts:
        scratch = Path(config.scratch_fallback)
        scratch.mkdir(parents=True, mode=0o700)
        if isolation.user:
            os.chown(scratch, config.uid, config.uid)
        return scratch
    build_fd = os.open(config.build, os.O_PATH | os.O_DIRECTORY) if config.build else None
    sandbox.mount_privately(config, keep)
    scratch = sandbox.SCRATCH / "kbopt"
    scratch.mkdir(mode=0o700)
    if isolation.user:
        os.chown(scratch, config.uid, config.uid)
    if build_fd is not None:
        sandbox.place_build(config, build_fd, isolation)
        os.close(build_fd)
    if isolation.processes:
        sandbox.mount_proc()
    return scratch


def _run_child(
    config: SandboxConfig,
    isolation: Isolation,
    scratch: Path,
    body: Callable[[], None],
    *,
    data_fd: int,
    output_fd: int,
) -> NoReturn:
    null_fd = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null_fd, 0), (output_fd, 1), (output_fd, 2)):
        os.dup2(source, target)
    sandbox.close_other_fds([data_fd])
    os.setsid()
    sandbox.prefer_for_oom_kill()
    sandbox.apply_limits(config.limits)
    os.umask(0o077)
    if isolation.user:
        sandbox.become_nobody(config.uid)
    elif os.geteuid() == 0:
        linux.drop_bounding_capabilities()
        linux.drop_capabilities()
    linux.forbid_new_privileges()
    linux.show_memory_to_itself()
    linux.die_with_parent()
    home = {"HOME": str(scratch), "TMPDIR": str(scratch), "USER": "nobody"}
    sandbox.replace_environment({**config.environ, **home})
    os.chdir(scratch)
    try:
        body()
    except ChannelClosed:
        os._exit(0)
    except BaseException:  # noqa: BLE001 - the log is the only place where this can still be said
        traceback.print_exc()
    finally:
        os._exit(_BROKEN)


def _watch(child: int, control_fd: int, memory_bytes: int, isolation: Isolation) -> dict[str, object]:
    os.set_blocking(control_fd, False)
    watch_at = time.monotonic()
    while True:
        ended = _reap(child)
        if ended is not None:
            return ended
        ready, _, _ = select.select([control_fd], [], [], _WATCH_INTERVAL_S)
        if ready:
            command = os.read(control_fd, 1)
            if not command:
                return {"how": "ended by the supervisor"}
            _signal_all(isolation, signal.SIGSTOP if command == STOP else signal.SIGCONT)
            os.write(control_fd, command)
        if time.monotonic() >= watch_at:
            watch_at = time.monotonic() + _WATCH_INTERVAL_S
            used_bytes = sum(_own_bytes(pid) for pid in _others(isolation))
            if used_bytes > memory_bytes + ARENA_BYTES:
                return {"memory_bytes": used_bytes}


def _reap(child: int) -> dict[str, object] | None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return {"how": "gone"}
        if pid == 0:
            return None
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return {"signal": -code} if code < 0 else {"exit": code}


def _others(isolation: Isolation) -> list[int]:
    if isolation.processes and isolation.mounts:
        return [int(path.name) for path in Path("/proc").glob("[0-9]*") if path.name != "1"]
    return linux.descendants(os.getpid())


def _signal_all(isolation: Isolation, number: int) -> None:
    if isolation.processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, number)
        return
    # Until a round finds nobody new: a tree that forks while it is walked is caught in the next round.
    seen: set[int] = set()
    while new := set(linux.descendants(os.getpid())) - seen:
        for pid in new:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        seen |= new


def _own_bytes(pid: int) -> int:
    """Resident memory that is no file's: private, and shared by mappings without a file."""
    total_kib = 0
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                total_kib += int(line.split()[1])
    return total_kib * 1024
