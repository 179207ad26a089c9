"""Keeps one agent: shows it its folder as the only one that it can write to, and ends all that it started.

`python -m kbopt.agents.keeper WORKSPACE [WRITABLE...] -- COMMAND...` with a pipe as standard input. The agent
ends by itself, or when the pipe's other end is closed, also by the death of its holder. The exit code is the
agent's, 128 and the signal's number after a signal.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

from kbopt.evaluation.sandbox import linux
from kbopt.evaluation.sandbox.confinement import cover

NOT_FOUND = 127
"""The exit code of a shell for a command that it does not find."""

POLL_S = 0.02
"""Between two looks whether what was killed is gone."""

MAX_FILE_BYTES = 2**30
"""Of what the agent prints and writes: a disk that it fills is the journal's too."""


def main() -> int:
    """Keep the agent that the command line names until it has ended; returns its exit code."""
    workspace, *rest = sys.argv[1:]
    split = rest.index("--")
    writable, command = [Path(workspace), *map(Path, rest[:split])], rest[split + 1 :]
    linux.adopt_orphans()
    agent = os.fork()
    if agent == 0:
        _become(command, writable)
    threading.Thread(target=_end_with_the_pipe, args=(agent,), daemon=True).start()
    code = _waited(agent)
    _end_all()
    return code


def _become(command: list[str], writable: list[Path]) -> None:
    """The forked child goes on as the agent; never returns."""
    forks = False
    try:
        os.setsid()
        os.chdir(writable[0])
        os.dup2(os.open("TASK.md", os.O_RDONLY), 0)
        linux.limit(resource.RLIMIT_FSIZE, MAX_FILE_BYTES)
        try:
            forks = _confine(writable)
        except OSError as error:
            print(f"kbopt: this machine does not confine the agent: {error}", file=sys.stderr, flush=True)
        linux.die_with_parent()  # after the last change of rights, which undoes it
        if forks:
            agent = os.fork()
            if agent:
                os._exit(_waited(agent))
            linux.die_with_parent()
        os.execvp(command[0], command)
    except Exception as error:  # noqa: BLE001 (a fork must never return to its parent's code)
        print(f"kbopt: the agent was not started: {command[0]}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(NOT_FOUND)


def _confine(writable: list[Path]) -> bool:
    """All files become read-only but those below `writable`; other briefs and GPUs are out of sight.

    So are all processes that the agent did not start, its keeper too, where the kernel grants that. Then
    the caller is the first process of them, with which the others end. Returns whether it is. The network
    stays, as an agent needs its model. Raises OSError where the kernel grants no namespace.
    """
    if os.geteuid() != 0:
        linux.become_user_namespace(os.geteuid())
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    is_first = _become_first()
    workspace = writable[0]
    cover(workspace.parent, [workspace], size_bytes=2**20)
    for path in writable[1:]:
        linux.mount(str(path), str(path), flags=linux.MS_BIND)
    for device in Path("/dev").glob("nvidia*"):
        if not device.is_dir():
            linux.mount("/dev/null", str(device), flags=linux.MS_BIND)
    linux.make_read_only()
    for path in writable:
        linux.set_read_only(str(path), False)
    os.chdir(workspace)
    linux.forbid_new_privileges()
    linux.drop_capabilities()
    return is_first


def _become_first() -> bool:
    """Go on as the first process of a new PID namespace, and return True, or False without one.

    The caller itself waits for it and ends with its exit code.
    """
    try:
        linux.unshare(linux.CLONE_NEWPID)
    except OSError:
        return False
    first = os.fork()
    if first:
        linux.die_with_parent()
        os._exit(_waited(first))
    with contextlib.suppress(OSError):  # Not where parts of /proc are covered, as in some containers.
        linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV)
    return True


def _end_with_the_pipe(agent: int) -> None:
    while os.read(0, 4096):
        pass
    with contextlib.suppress(ProcessLookupError):
        os.kill(agent, signal.SIGKILL)


def _waited(agent: int) -> int:
    """The agent's exit code. Orphans that it left are reaped meanwhile."""
    while True:
        pid, status = os.wait()
        if pid == agent:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _end_all() -> None:
    """Kill what is left until nothing is: a process may start another one while it is killed."""
    while True:
        for pid in linux.descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(POLL_S)


if __name__ == "__main__":
    sys.exit(main())
