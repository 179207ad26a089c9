"""The jobs that drain a spool: their claims of requests, and their heartbeats."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kbopt.core import codec
from kbopt.core.ports import Phase
from kbopt.evaluation.spool.files import CLAIMS, JOBS, Say, open_regular, publish

JobState = Literal["starting", "serving", "ended"]

BEAT_S = 2.0
"""Seconds between two heartbeats."""
TAKEOVER_S = 120.0
"""Seconds without a heartbeat after which a job counts as gone. NFS may show a file a minute late."""


def claim(folder: Path, request: str, generation: int, job: str) -> str:
    """Claim a request for `job`. Return the name of the job that holds the claim. Raises OSError.

    If the claiming job was killed before it wrote its name, the name of the claim's file is returned. No job
    has that name, so the claim can be taken over.
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
    """A job's heartbeat.

    `beat` counts up. `time` is the job's own clock in Unix seconds, only for display. `waiting` counts
    requests without a result, and `elsewhere` those of them for another device. `trouble` is a message for
    the user, or "". `phases` counts the requests that it has claimed in each phase.
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
    phases: Mapping[Phase, int] = field(default_factory=dict)


def show_life(folder: Path, job: Job) -> None:
    """Write the job's heartbeat. Raises OSError."""
    publish(folder / JOBS / f"{job.name}.json", codec.encode(job))


@dataclass(slots=True)
class _Seen:
    job: Job
    changed: float
    moves: bool = False


class JobWatch:
    """Finds out which jobs are alive, by whether their heartbeats change. `clock` returns seconds."""

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
        """Read the heartbeats. Raises OSError if the folder cannot be listed."""
        for path in self._folder.iterdir():
            if path.suffix != ".json" or path.name.startswith("."):
                continue
            seen = self._seen.get(path.stem)
            if seen is not None and seen.job.state == "ended":
                continue
            try:
                with open_regular(path) as file:
                    job = codec.loads(Job, file.read())
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
        """The job with the latest heartbeat by the jobs' own clocks, or None."""
        return max((seen.job for seen in self._seen.values()), key=lambda job: job.time, default=None)

    @property
    def alive(self) -> tuple[Job, ...]:
        """The jobs that are alive, sorted by name."""
        return tuple(self._seen[name].job for name in sorted(self._seen) if self.is_alive(name))

    def is_alive(self, name: str) -> bool:
        """Return whether its heartbeat has changed while this watched, and not too long ago."""
        seen = self._seen.get(name)
        return seen is not None and seen.moves and not self.is_gone(name)

    def is_gone(self, name: str) -> bool:
        """Return whether it said that it ended, or had no new heartbeat for `takeover_s` seconds."""
        seen = self._seen.get(name)
        if seen is None:
            return self._clock() - self._missed.setdefault(name, self._clock()) >= self._takeover_s
        return seen.job.state == "ended" or self._clock() - seen.changed >= self._takeover_s
