"""Builds side by side: bounded, joined when equal, kept in the store. For one asyncio event loop.

How a build is executed is the caller's business (`BuildStep`: the sandboxed child that runs the
candidate with `inline.install` in mode `build`). What happens around it is here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from kbopt.evaluation.compile.bridge import headers_key
from kbopt.evaluation.compile.store import Entry, Store, build_key
from kbopt.evaluation.compile.toolchain import Toolchain

# nvcc on torch's full headers peaks near 1.6 GB (cicc and cc1plus in turn), g++ beside it near 1.2 GB.
BUILD_MEMORY_BYTES = 3 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """How a build step ended. `ok` False: the compiler refused the source, in the words of `log`."""

    ok: bool
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A candidate's finished build.

    `directory` is what the measure child is given, read-only. `seconds` is the wall clock that building
    took, 0.0 for one found in the store (`cached`).
    """

    key: str
    ok: bool
    log: str
    seconds: float
    directory: Path
    cached: bool


# Runs one candidate's build in the directory it is given, which is empty and private to this build.
# Raising means that nothing is known about the candidate: nothing is stored, the caller sees it.
BuildStep = Callable[[Path], Awaitable[StepResult]]


def default_workers() -> int:
    """As many builds as cores, and no more than the memory that is free carries."""
    cores = len(os.sched_getaffinity(0))
    free_bytes = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(cores, free_bytes // BUILD_MEMORY_BYTES))


class BuildPool:
    """At most `workers` build steps at a time; equal sources share one.

    Equal means: same source, same toolchain, same headers of kbopt. Across processes the store's locks
    keep equal sources from being built twice.
    """

    def __init__(self, store: Store, toolchain: Toolchain, *, workers: int | None = None) -> None:
        self._store = store
        self._toolchain = toolchain
        self._slots = asyncio.Semaphore(workers or default_workers())
        self._in_flight: dict[str, _Shared] = {}

    def key(self, source: str) -> str:
        """The name under which the build of a candidate's Python source is kept."""
        return build_key(source, flags={"headers": headers_key()}, toolchain_key=self._toolchain.key)

    async def build(self, source: str, step: BuildStep) -> Build:
        """The build of `source`, from the store, from one in flight, or by running `step`.

        Cancelling one of several callers that share a build does not cancel it; when the last one
        goes, the step is cancelled.
        """
        key = self.key(source)
        found = self._store.find(key)
        if found is not None:
            return _as_build(found, cached=True)
        shared = self._in_flight.get(key)
        if shared is None:
            task = asyncio.create_task(self._build(key, step), name=f"build-{key[:12]}")
            shared = self._in_flight[key] = _Shared(task)
            task.add_done_callback(lambda _: self._in_flight.pop(key))
        return await shared.result()

    async def close(self) -> None:
        """Cancels what is being built and waits until it is gone."""
        tasks = [shared.task for shared in self._in_flight.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _build(self, key: str, step: BuildStep) -> Build:
        async with self._slots, _entered(self._store.building(key)) as found:
            if found is not None:
                return _as_build(found, cached=True)
            directory = self._store.staging()
            try:
                started = time.monotonic()
                result = await step(directory)
                seconds = time.monotonic() - started
                entry = await asyncio.to_thread(
                    self._store.publish, key, directory, ok=result.ok, log=result.log, seconds=seconds
                )
            finally:
                await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
            return _as_build(entry, cached=False)


class _Shared:
    """A task with several callers, cancelled when the last of them goes."""

    def __init__(self, task: asyncio.Task[Build]) -> None:
        self.task = task
        self._callers = 0

    async def result(self) -> Build:
        self._callers += 1
        try:
            return await asyncio.shield(self.task)
        finally:
            self._callers -= 1
            if self._callers == 0:
                self.task.cancel()


def _as_build(entry: Entry, *, cached: bool) -> Build:
    return Build(
        key=entry.key,
        ok=entry.ok,
        log=entry.log,
        seconds=0.0 if cached else entry.seconds,
        directory=entry.directory,
        cached=cached,
    )


@contextlib.asynccontextmanager
async def _entered(manager: AbstractContextManager[Entry | None]) -> AsyncIterator[Entry | None]:
    """A blocking context manager, entered in a thread; the loop stays free while it waits."""
    entering = asyncio.ensure_future(asyncio.to_thread(manager.__enter__))
    try:
        value = await asyncio.shield(entering)
    except asyncio.CancelledError:
        entering.add_done_callback(
            lambda done: manager.__exit__(None, None, None) if not done.exception() else None
        )
        raise
    try:
        yield value
    finally:
        manager.__exit__(None, None, None)
