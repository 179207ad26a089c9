"""Real drains of a spool on the CPU, as batch jobs start them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kbopt.backends.spool import SpoolBackend
from kbopt.core.ports import BackendStatus
from kbopt.evaluation.spool.files import open_spool
from tests.support.processes import kill_family

DEADLINE_S = 120.0


def start_drain(spool: Path, state_dir: Path, *options: object) -> subprocess.Popen[str]:
    """`drain` on the CPU; its standard error is a pipe."""
    words = ["drain", spool, "--device", "cpu", "--state-dir", state_dir, *options]
    return subprocess.Popen(
        [sys.executable, "-m", "kbopt.evaluation", *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@contextmanager
def draining(spool: Path, state_dir: Path, *options: object) -> Iterator[subprocess.Popen[str]]:
    """A drain that serves; whatever is left of it at the end is killed."""
    open_spool(spool, create=True)
    process = start_drain(spool, state_dir, *options)
    try:
        wait_until_it_serves(spool, process)
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    """Kill the drain and all that it started."""
    if process.poll() is None:
        kill_family(process.pid)
    process.communicate()


def wait_until_it_serves(spool: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while process.poll() is None and time.monotonic() < deadline:
        if any((job["pid"], job["state"]) == (process.pid, "serving") for job in jobs(spool)):
            return
        time.sleep(0.05)
    raise TimeoutError(f"no drain serves {spool}; it ended with {process.poll()}")


def jobs(spool: Path) -> list[dict[str, object]]:
    """The signs of life of all jobs."""
    return [json.loads(path.read_text()) for path in (spool / "jobs").glob("[!.]*.json")]


def lines(spool: Path, part: str) -> list[dict[str, object]]:
    """The whole lines of all files in `requests` or `results`."""
    texts = [path.read_text() for path in sorted((spool / part).glob("*.jsonl"))]
    return [json.loads(line) for text in texts for line in text.splitlines() if text.endswith("\n")]


def wait_for_claims(spool: Path, count: int = 1) -> list[Path]:
    """The claims, once there are so many."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        found = sorted((spool / "claims").iterdir())
        if len(found) >= count:
            return found
        time.sleep(0.05)
    raise TimeoutError(f"no {count} claims in {spool}")


class DrainedSpool(SpoolBackend):
    """A spool with a drain of its own, from its opening to its end."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "spool", device="cpu")
        self._state_dir = folder / "state"
        self._process: subprocess.Popen[str] | None = None

    async def open(self) -> BackendStatus:
        if self._process is None:
            open_spool(self._folder, create=True)
            self._process = start_drain(self._folder, self._state_dir)
            await asyncio.to_thread(wait_until_it_serves, self._folder, self._process)
        return await super().open()

    async def close(self) -> None:
        await super().close()
        if self._process is not None:
            end(self._process)
