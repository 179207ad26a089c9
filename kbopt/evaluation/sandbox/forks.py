"""The supervisor's requests to the fork server and its answers, and how a process that it forked ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kbopt.evaluation.messages import Done
from kbopt.evaluation.sandbox.confinement import SandboxConfig

Role = Literal["build", "measure", "kernelbench", "inspect", "dissect", "trace", "count"]
RAISED = 71
"""The exit code of a forked process of kbopt's own that an exception ended. The log has its traceback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkServerReady:
    """The isolation that the kernel grants to sandboxes, in words, and whether it is all that there is."""

    isolation: str
    is_whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnJudge:
    """Fork a judge, a trusted process. Its socket comes along. Answered by `Spawned` or `NotSpawned`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnSandbox:
    """Fork a sandbox with a process in a role. Its `init_process.Ends` come along.

    Answered by `Spawned` or `NotSpawned`.
    """

    role: Role
    config: SandboxConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """Kill a process, unless it has ended. Answered by `Done`."""

    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetEnvironment:
    """Set variables for trusted processes that start later. Answered by `Done`."""

    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskExit:
    """Say how a process ended. Answered by `Exit`."""

    pid: int


ToForkServer = SpawnJudge | SpawnSandbox | Kill | SetEnvironment | AskExit


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawned:
    """The process was forked."""

    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotSpawned:
    """No process could be forked."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """The exit code, negative for a signal. It is None if the process runs, or `Kill` ended it."""

    code: int | None


FromForkServer = Spawned | NotSpawned | Done | Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a sandbox's child ended: by a `signal`, with an `exit` code, or because it held `memory_bytes`.

    If none of these is set, `how` says it in words.
    """

    how: str = "killed"
    signal: int | None = None
    exit: int | None = None
    memory_bytes: int | None = None
