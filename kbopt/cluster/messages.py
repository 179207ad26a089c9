"""What the actors say to each other and to the driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kbopt.core.costs import Rent
from kbopt.core.evaluations import Result
from kbopt.core.events import InfraFailed
from kbopt.core.ports import Attempts, Backend, BackendStatus, Embedder, Proposer, Summarizer
from kbopt.core.proposals import Brief
from kbopt.core.protocol import EvalProtocol
from kbopt.core.scoring import Standing
from kbopt.core.settings import Budget, SearchSettings
from kbopt.core.tally import Progress
from kbopt.core.task import Task
from kbopt.core.work import SummaryRequest

LEASE_S = 1800.0
"""Seconds after which a brief counts as lost with its explorer and is handed out again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpec:
    """One search of a sweep. `folder` holds its journal, which exists before the actors start.

    With `shares_results` what another search has measured comes from the cache and costs no evaluation. With
    `kernelbench` KernelBench's own verdict is asked for each evaluation, not for the winner's full one alone,
    with `evidence` a profile of each kernel that a model is to improve. `lease_s` is how long a proposer may
    take for one brief. `lessons` are what earlier searches left for its proposer.
    """

    name: str
    folder: Path
    task: Task
    settings: SearchSettings
    protocol: EvalProtocol
    shares_results: bool = False
    kernelbench: bool = False
    lease_s: float = LEASE_S
    evidence: bool = False
    lessons: str = ""

    @property
    def journal(self) -> Path:
        return self.folder / "journal.sqlite"

    @property
    def scope(self) -> str:
        """Within which results are shared: this search, by its place, as searches of two sweeps may have one
        name.
        """
        return "" if self.shares_results else str(self.folder.resolve())


@dataclass(frozen=True, slots=True, kw_only=True)
class Factories:
    """How the actors build their parts, each in its own process. Composed in `kbopt.compose.searches`."""

    backend: Callable[[], Backend]
    proposer: Callable[[SearchSpec, Attempts], Proposer]
    summarizer: Callable[[SearchSpec], Summarizer]
    embedder: Callable[[SearchSpec], Embedder]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The evaluator's answer. `failures` are the attempts that the infrastructure lost before it.

    `waiting` counts the requests, of all searches, that the device found when it was done with this one.
    `rent` is what the device cost since the answer before this one, whoever got that: summed over all
    answers it is the whole rent, and a search that asks more pays more.
    """

    result: Result
    cached: bool
    waiting: int = 0
    failures: tuple[InfraFailed, ...] = ()
    rent: Rent | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Work for one explorer coroutine: a brief to answer, or a summary to write."""

    search: str
    work: Brief | SummaryRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """No work now. `finished` once there will be none."""

    finished: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatorStatus:
    """The evaluator since its process began. `device_s` sums what the device spent on models."""

    backend: BackendStatus
    queue_length: int
    in_flight: int
    evaluations: int
    by_outcome: Mapping[str, int]
    cached: int
    joined: int
    device_s: float
    uptime_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a search cannot go on: the user must act (`user`), or a machine gave up (`infra`).

    `details` is the traceback of an exception that nobody foresaw; it goes to the journal.
    """

    kind: Literal["user", "infra"]
    message: str
    details: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchStatus:
    """One search as the progress view shows it. `elapsed_s` counts earlier sessions too. `budget` and
    `max_proposals` are what it may use, with what was raised and granted.
    """

    name: str
    task: str
    algorithm: str
    seed: int
    progress: Progress
    elapsed_s: float
    device_s: float
    best: Standing | None
    ended: str | None
    failure: Failure | None
    budget: Budget
    max_proposals: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorStatus:
    """All searches of a coordinator. `finished` once each has ended, failed, or was `stopped` by the user."""

    searches: tuple[SearchStatus, ...]
    explorers: int
    finished: bool
    stopped: bool
