"""The jobs that drain a spool: which request is whose, and who is still alive."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kbopt.core import codec
from kbopt.evaluation.spool.files import CLAIMS, JOBS, Say, publish

JobState = Literal["starting", "serving", "ended"]

BEAT_S = 2.0
TAKEOVER_S = 120.0
"""A job that gave no sign of life for this long is gone. NFS may show a file as it was a minute ago."""


def claim(folder: Path, request: str, generation: int, job: str) -> str:
    """Claim a request for `job`. Returns whose it is: `job`, if nobody was quicker. Raises OSError.

    A claim without a name, of a job that was killed as it made it, belongs to a job of the claim's own name.
    """
    path = folder / CLAIMS / f"{request}.{generation}"
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        return path.read_text(errors="replace") or path.name
    try:
        os.write(descriptor, job.encode())
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(descriptor)
    return job


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A drain's sign of life. `beat` counts up; `time` is its own clock, in Unix seconds, to be shown only.

    `waiting` requests have no result, and of these `elsewhere` are for another device. `trouble` is what
    the user should hear of it.
    """

    name: str
    host: str
    pid: int = 0
    device: str = ""
    boot: str = ""
    state: JobState = "starting"
    started: float = 0.0
    time: float = 0.0
    beat: int = 0
    judged: int = 0
    waiting: int = 0
    elsewhere: int = 0
    isolation: str = ""
    trouble: str = ""


def show_life(folder: Path, job: Job) -> None:
    """Replace the job's sign of life. Raises OSError."""
    publish(folder / JOBS / f"{job.name}.json", codec.encode(job))


@dataclass(slots=True)
class _Seen:
    job: Job
    changed: float
    moves: bool = False


class JobWatch:
    """Which jobs are alive, by whether their signs of life change while this looks. `clock` is in seconds."""

    def __init__(
        self,
        folder: Path,
        complain: Say,
        *,
        takeover_s: float = TAKEOVER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder / JOBS
        self._complain = complain
        self._takeover_s = takeover_s
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._missed: dict[str, float] = {}

    def look(self) -> None:
        """Read the signs of life. Raises OSError where the folder cannot be listed."""
        for path in self._folder.iterdir():
            if path.suffix != ".json" or path.name.startswith("."):
                continue
            seen = self._seen.get(path.stem)
            if seen is not None and seen.job.state == "ended":
                continue
            try:
                job = codec.loads(Job, path.read_bytes())
            except FileNotFoundError:
                continue
            except (OSError, codec.CodecError) as error:
                self._complain(f"cannot read {path}: {error}")
                continue
            if seen is None:
                self._seen[path.stem] = _Seen(job, self._clock())
            elif job.beat != seen.job.beat:
                seen.job, seen.changed, seen.moves = job, self._clock(), True

    @property
    def last(self) -> Job | None:
        """The job that gave the latest sign of life, by the jobs' own clocks."""
        return max((seen.job for seen in self._seen.values()), key=lambda job: job.time, default=None)

    @property
    def alive(self) -> tuple[Job, ...]:
        """The jobs whose signs of life changed lately, by name."""
        return tuple(self._seen[name].job for name in sorted(self._seen) if self.is_alive(name))

    def is_alive(self, name: str) -> bool:
        """Whether it gave a sign of life since this looks, and not too long ago."""
        seen = self._seen.get(name)
        return seen is not None and seen.moves and not self.is_gone(name)

    def is_gone(self, name: str) -> bool:
        """Whether it ended, or was silent for so long that others take its requests over."""
        seen = self._seen.get(name)
        if seen is None:
            return self._clock() - self._missed.setdefault(name, self._clock()) >= self._takeover_s
        return seen.job.state == "ended" or self._clock() - seen.changed >= self._takeover_s
