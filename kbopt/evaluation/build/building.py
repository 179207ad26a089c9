"""Builds candidates' extensions in a sandbox, before the device lease, and keeps them by content.

The same source runs twice: in a build child, where compilers may run, and in the children that measure it,
which find the results. `kbopt.leanbuild` does the work.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbopt.core.errors import InfraError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.languages import remedy_of
from kbopt.core.outcomes import CompileFailed, Outcome, Rejected, TimedOut
from kbopt.core.workloads import shown_source
from kbopt.evaluation.messages import Build, BuildDone, Raised, SourceRefused
from kbopt.evaluation.sandbox.children import Child, ForkServerHandle
from kbopt.evaluation.sandbox.confinement import SandboxConfig
from kbopt.evaluation.sandbox.memory import KilledForMemory
from kbopt.evaluation.server.devices import Device
from kbopt.evaluation.server.needs import NVCC_BYTES
from kbopt.evaluation.transport.channel import ChannelClosed, WireError
from kbopt.evaluation.transport.untrusted import CandidateForged, failure_in, value_of
from kbopt.leanbuild import extensions
from kbopt.leanbuild.bridge import ensure_bridge, headers_key
from kbopt.leanbuild.extensions import Setup
from kbopt.leanbuild.store import Entry, Store, TooMuchLeft, build_key, remove

_EXTENSIONS = "cpp_extension"
_LATER = ("def ", "lambda", " as ", "class ")
_KILLED = re.compile(r"[Kk]illed|\([Kk]ill signal\)|signal 9")
"""How g++ and nvcc report that SIGKILL ended one of their compilers."""
_COMPILED_AT_LAUNCH = ("triton", "tilelang", "_compile_kernel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A build: the folder of its results, and the argument of `inline.install` with which a child finds them.

    `setup` is "" if there is nothing to find. `readable` are further folders that the child has to see.
    """

    folder: str
    setup: str
    readable: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotBuilt:
    """A failed build, with the output of the compiler."""

    outcome: Outcome
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """A source that ran to its end in a build child, and whether its build is `messages.BuildDone.whole`."""

    log: str
    whole: bool


def _ended(answer: Any, log: str) -> _Done | NotBuilt:
    try:
        failure = failure_in(answer)
        if failure is None:
            return _Done(log=log, whole=value_of(BuildDone, answer, "the end of a build").whole)
    except CandidateForged as error:
        reason = f"the child's messages were forged: {error}"
        return NotBuilt(outcome=Rejected(reason=reason, family="forged_verdict"), log=log)
    reason = failure.reason if isinstance(failure, SourceRefused) else _reason(failure)
    return NotBuilt(outcome=CompileFailed(reason=reason, lasting=failure.lasting), log=log)


def _reason(raised: Raised) -> str:
    return "\n".join(filter(None, (str(raised), remedy_of(str(raised)), raised.frames)))


def names_loader_late(source: str) -> bool:
    """Return whether the source may load an extension after its import, by `load` or `load_inline`.

    It is true if a line with `load` is indented, defines a function or class, or gives the loader another
    name.
    """
    if _EXTENSIONS not in source:
        return False
    lines = [line for line in source.split("\n") if "load" in line]
    return any(line[0] in " \t" or any(word in line for word in _LATER) for line in lines)


def num_builds_at_once(device: Device) -> int:
    """Return how many builds run at once: as many as the cores and the free memory allow, at least one.

    A CUDA build runs two compilers at once. With more builds than cores, all would end late and together, and
    the device would wait longer for the first one.
    """
    free_bytes = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    compilers = 2 if device.is_cuda else 1
    return max(1, min(len(os.sched_getaffinity(0)) // compilers, free_bytes // NVCC_BYTES))


class Builder:
    """Builds sources for one device. Many threads may use it.

    Equal sources are built once, across threads, processes and runs, because the store has locks. `sandbox`
    returns the configuration of a child that may write to the build's folder.
    """

    def __init__(
        self,
        fork_server: ForkServerHandle,
        root: Path,
        device: Device,
        sandbox: Callable[[Built], SandboxConfig],
    ) -> None:
        self._fork_server = fork_server
        self._store = Store(root.resolve())
        self._device = device
        self._sandbox = sandbox
        self._late: set[str] = set()

    def prepare(self) -> None:
        """Build the bridge that C++ and CUDA candidates link to, in a thread, unless the store has it."""

        def work() -> None:
            with suppress(InfraError, OSError):  # The first build that needs it raises the error.
                ensure_bridge(self._store, self._device.toolchain)

        threading.Thread(target=work, daemon=True).start()

    def build(self, request: EvalRequest) -> Built | NotBuilt:
        """Return the build from the store, or run the source in a build child. Raises InfraError."""
        key = self._key(request)
        found: Entry | NotBuilt | None = self._store.find(key)
        if found is None:
            with self._store.building(key) as finished:
                found = self._build(key, request) if finished is None else finished
        if isinstance(found, NotBuilt):
            return found
        if not found.ok:
            return NotBuilt(outcome=CompileFailed(reason=found.reason, lasting=True), log=found.log)
        return self._built(request.source, found.directory, mode="use")

    def builds_more(self, request: EvalRequest, outcome: Outcome) -> bool:
        """Return whether the candidate should be built again, because it asked for an unbuilt extension.

        The next build also constructs and calls its model. This is tried once for each source.
        """
        failed = isinstance(outcome, CompileFailed) and outcome.reason.startswith(
            f"{extensions.NotBuilt.__name__}:"
        )
        if not failed or self._is_called_ahead(request.source):
            return False
        self._late.add(request.source)
        return True

    def _key(self, request: EvalRequest) -> str:
        flags = {"headers": headers_key()}
        if self._is_called_ahead(request.source):
            flags["precision"] = request.protocol.precision
            flags["backward"] = str(request.protocol.backward)
        if self._builds_late(request.source):
            flags["task"] = request.task.key
        return build_key(request.source, flags=flags, toolchain_key=self._device.toolchain.key)

    def _build(self, key: str, request: EvalRequest) -> Entry | NotBuilt:
        staging = self._store.staging()
        try:
            started = time.monotonic()
            done = self._run_child(request, self._built(request.source, staging, mode="build"))
            seconds = time.monotonic() - started
            if isinstance(done, _Done):
                # A build that is not whole gets a random key, so that it is never found again.
                kept = key if done.whole else secrets.token_hex(len(key) // 2)
                return self._store.publish(kept, staging, ok=True, log=done.log, seconds=seconds)
            if isinstance(done.outcome, CompileFailed) and done.outcome.lasting:
                reason = done.outcome.reason
                self._store.publish(key, staging, ok=False, log=done.log, seconds=seconds, reason=reason)
            return done
        except TooMuchLeft as error:
            return NotBuilt(outcome=CompileFailed(reason=str(error)), log="")
        finally:
            remove(staging)

    def _run_child(self, request: EvalRequest, built: Built) -> _Done | NotBuilt:
        config = self._sandbox(built)
        if os.geteuid() == 0:
            os.chown(built.folder, config.uid, config.uid)
        limit_s = request.protocol.compile_timeout_s
        with closing(Child(self._fork_server, "build", config)) as child:
            try:
                reply = child.ask(self._job(request, built), limit_s)
            except TimeoutError:
                reason = f"importing the source, which builds it, took longer than {limit_s:g} s"
                outcome = TimedOut(reason=reason, stage="compile", limit_s=limit_s)
                return NotBuilt(outcome=outcome, log=child.log)
            except (ChannelClosed, WireError):
                return NotBuilt(outcome=child.crash(), log=child.log)
            child.close()
            ended = _ended(reply, child.log)
            if (
                isinstance(ended, NotBuilt)
                and isinstance(ended.outcome, CompileFailed)
                and child.has_seen_kills
                and _KILLED.search(f"{ended.outcome.reason}\n{child.log}")
            ):
                raise KilledForMemory("a compiler", of_judge=False)
            return ended

    def _job(self, request: EvalRequest, built: Built) -> Build:
        return Build(
            source=request.source,
            setup=built.setup,
            task_source=shown_source(request.task.source) if self._is_called_ahead(request.source) else "",
            device=self._device.torch,
            precision=request.protocol.precision,
            backward=request.protocol.backward,
            arch=self._device.toolchain.arch,
        )

    def _is_called_ahead(self, source: str) -> bool:
        """Return whether the build also has to construct and call the model.

        Some kernels are compiled at their launch, for the types of their arguments, and some extensions are
        built when the model is constructed or first called.
        """
        at_launch = self._device.is_cuda and any(word in source for word in _COMPILED_AT_LAUNCH)
        return at_launch or self._builds_late(source)

    def _builds_late(self, source: str) -> bool:
        return source in self._late or names_loader_late(source)

    def _built(self, source: str, folder: Path, mode: Any) -> Built:
        extends = _EXTENSIONS in source
        if not extends and not self._device.is_cuda:
            return Built(folder=str(folder), setup="", readable=())
        # The bridge takes some 6 s to build, once, so it is built only for a source that links to it.
        bridge = ensure_bridge(self._store, self._device.toolchain) if extends else None
        setup = Setup(
            mode=mode,
            directory=str(folder),
            toolchain=self._device.toolchain,
            bridge=str(bridge) if bridge else "",
        )
        readable = (str(bridge.parent),) if bridge else ()
        return Built(folder=str(folder), setup=setup.encode(), readable=readable)
