"""Starts Ray on this machine for one driver, or connects to a cluster."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants, utils, worker
from ray._private.node import Node
from ray.job_config import JobConfig

from kbopt.cluster.actors import NAMESPACE
from kbopt.core.errors import InfraError, UserError

ONLOOKERS = ("start_monitor", "start_log_monitor", "start_api_server")
"""What Ray starts and nobody asks anything where it is a driver's own: the autoscaler has nothing to scale,
the log monitor serves `log_to_driver`, and without a dashboard its server only reports usage. They take 2.4
of the 7.2 s of a processor that a start costs (Ray 2.60)."""

LONGEST_TMPDIR = 39
"""Bytes. A socket's path has at most 107, of which Ray adds 68: ray/session_.../sockets/plasma_store."""


def start_ray(address: str | None) -> None:
    """Connect to the cluster at `address`, or start Ray on this machine for this process alone.

    Raises `InfraError` in one line, whatever Ray raises. SIGTERM stays with whoever handled it before.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled" if address is None else "token")
    # Ray's threads allocate in heaps of their own what another thread frees: with one heap a coordinator does
    # not grow. Workers inherit it from here; on a cluster the nodes set it (ray_cluster.yaml).
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")
    options: dict[str, Any] = {
        "namespace": NAMESPACE,
        "log_to_driver": False,
        "logging_level": "ERROR",
        "job_config": _looks_where_the_driver_does(),
    }
    try:
        if address is None:
            with _signals_as_before(), _without_onlookers(), _nothing_left_of_a_start_that_fails():
                ray.init(address="local", include_dashboard=False, _temp_dir=_ray_folder(), **options)
        else:
            with _signals_as_before():
                ray.init(address=address, **options)
    except Exception as error:
        reason = " ".join(str(error).split())
        if address is None:
            raise InfraError(
                f"Ray did not start on this machine: {type(error).__name__}: {reason}"
            ) from error
        raise InfraError(
            f"no Ray cluster answers at {address}: {reason} Start one with `ray start --head`, or leave out "
            "--address to run on this machine alone."
        ) from error


class _OnItsPath(list[str]):
    """Takes the folders alone in which this process looks for modules."""

    def extend(self, folders: Iterable[str]) -> None:
        own = {Path(folder or ".").resolve() for folder in sys.path}
        super().extend(folder for folder in folders if Path(folder).resolve() in own)


def _looks_where_the_driver_does() -> JobConfig:
    """Ray has workers look for modules in the working directory first. A kernel of the user's that lies there
    as copy.py or queue.py would end each of them as it starts, without end; there is no option for that.
    """
    config = JobConfig()
    config._py_driver_sys_path = _OnItsPath()
    return config


@contextmanager
def _signals_as_before() -> Iterator[None]:
    """Meanwhile SIGTERM stays with whoever handled it before, and what comes while Ray connects waits.

    Ray would exit with 15, and once it connects take SIGTERM for a crash: print a report and abort. There is
    an option for the latter, RAY_DISABLE_FAILURE_SIGNAL_HANDLER. It is read as Ray is imported, and workers
    would inherit it, whose crashes shall still be reported: so this sets what Ray made of it. A connection
    that an exception cuts short crashes the process as it exits: signals are handled once it stands.
    """
    came: list[int] = []
    before: dict[int, Any] = {}
    whole = worker.connect, utils.set_sigterm_handler, ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER

    def connect(*arguments: Any, **named: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, lambda got, _: came.append(got))
        whole[0](*arguments, **named)

    worker.connect, utils.set_sigterm_handler = connect, lambda _: None
    ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True
    try:
        yield
    finally:
        (
            worker.connect,
            utils.set_sigterm_handler,
            ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER,
        ) = whole
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


@contextmanager
def _without_onlookers() -> Iterator[None]:
    """Meanwhile Ray starts without its onlookers; it has no options for that, so this uses private names."""
    whole = {name: method for name, method in vars(Node).items() if name in ONLOOKERS}
    for name in whole:
        setattr(Node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, method in whole.items():
            setattr(Node, name, method)


@contextmanager
def _nothing_left_of_a_start_that_fails() -> Iterator[None]:
    """Ends what Ray's daemons started meanwhile if a signal or an error comes in between.

    The daemons end with this process, but what the raylet has just started would look for it for a minute.
    They are stopped, so that they start no more, and not killed: this process aborts if it has connected.
    """
    before = _children(os.getpid())
    try:
        yield
    except BaseException:
        for daemon in _children(os.getpid()) - before:
            with suppress(ProcessLookupError):
                os.kill(daemon, signal.SIGSTOP)
                for started in _children(daemon):
                    os.kill(started, signal.SIGKILL)
        raise


def _children(pid: int) -> set[int]:
    """The processes that any thread of `pid` has started and that have not been waited for."""
    found: set[int] = set()
    for threads in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found.update(map(int, threads.read_text().split()))
    return found


def _ray_folder() -> str | None:
    """Where Ray keeps its sockets: None for its own choice, unless that would not do."""
    # Ray takes TMPDIR as it is written, unlike Python, which looks whether the folder is there.
    usual = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    if _holds_sockets(usual):
        return None
    for folder in (os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp", "/var/tmp", "/dev/shm"):
        if _holds_sockets(folder):
            return f"{folder}/ray-{os.getuid()}"
    raise UserError(
        f"the folder for temporary files, {usual}, does not do for Ray's sockets. Name one in RAY_TMPDIR "
        f"that you may write to, by an absolute path of at most {LONGEST_TMPDIR} characters."
    )


def _holds_sockets(folder: str) -> bool:
    is_short = len(os.fsencode(folder)) <= LONGEST_TMPDIR
    return is_short and Path(folder).is_absolute() and os.access(folder, os.W_OK | os.X_OK)
