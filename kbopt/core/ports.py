"""What the search needs from the outside world, as protocols. The simulator implements them too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from kbopt.core.costs import Rent, Usage
from kbopt.core.evaluations import EvalRequest, Result, TaskReport
from kbopt.core.events import Event
from kbopt.core.profile import Profiled, ProfileRequest
from kbopt.core.proposals import Brief, Candidate, NoProposal, Trial

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BackendState = Literal["starting", "building", "waiting", "warm", "closed", "failed"]

Phase = Literal["timing", "checking", "building", "admitting", "comparing", "profiling", "waiting"]
"""What becomes of a request: its task is admitted, its source built, checked and timed, then compared with
baselines and judged by KernelBench's protocol; or it waits for the device. The nearest to its end first."""


class Proposer(Protocol):
    """Writes one source for one brief.

    `propose` may be called concurrently. It never raises for what a model did wrong: that is a
    `NoProposal` with the money it cost. `InfraError` is for services that are down.
    """

    name: str

    async def propose(self, brief: Brief) -> Candidate | NoProposal: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A source that was judged on the way to a brief's answer. `cached` where that cost no evaluation."""

    trial: Trial
    cached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Declined:
    """Why a source is not judged, as a sentence."""

    reason: str


class Attempts(Protocol):
    """The judge as the proposer of one search reaches it, while it answers a brief.

    An equal source of the same brief is the same attempt. `judge` raises `InfraError` where the search ends
    meanwhile.
    """

    async def earlier(self, brief: str) -> tuple[Trial, ...]:
        """What was judged for `brief` so far, also before a crash, oldest first."""
        ...

    async def judge(self, brief: str, source: str, *, proposer: str, note: str) -> Attempt | Declined: ...

    async def profile(self, candidate: Candidate) -> Profiled:
        """What limits one of them. Raises `InfraError` for a lost machine."""
        ...


class Summarizer(Protocol):
    """Turns successes and failures into recommendations, merged with `previous`."""

    async def summarize(self, trials: Sequence[Trial], previous: str) -> tuple[str, tuple[Usage, ...]]: ...


class Embedder(Protocol):
    """Unit vectors for sources, float32 of shape (len(sources), dim). Equal sources, equal vectors.

    `waits` where `embed` asks a service for sources that it has not seen yet: call it in a thread then.
    """

    name: str
    waits: bool

    def embed(self, sources: Sequence[str]) -> NDArray[np.float32]: ...


class Journal(Protocol):
    """Appends events durably: when `append` returns, the event survives a killed process."""

    def append(self, event: Event) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStatus:
    """What a progress line says of the device. `age_s` is the age of the container or worker.

    `cold_boots` are the containers or workers started on behalf of this handle, none where it found a warm
    one. `detail` is a sentence for the user, such as which other GPUs to try while waiting. `warning` is one
    to be said aloud. `rent` is what a rented device cost this handle so far, None where it costs nothing;
    `idle_usd` is what it may cost further if nobody uses or stops it. `phases` counts the requests in each
    phase, as far as the backend knows.
    """

    state: BackendState
    device: str
    boot: str
    age_s: float
    cold_boots: tuple[str, ...] = ()
    detail: str = ""
    warning: str = ""
    rent: Rent | None = None
    idle_usd: float = 0.0
    phases: Mapping[Phase, int] = field(default_factory=dict)

    @property
    def cold_starts(self) -> int:
        return len(self.cold_boots)


@runtime_checkable
class Describer(Protocol):
    """A backend that can also say whether a request's task can be scored, and what that takes. Raises
    `InfraError` for a lost machine.
    """

    async def describe(self, request: EvalRequest) -> TaskReport: ...


@runtime_checkable
class Profiler(Protocol):
    """A backend that can also say what limits a source. Raises `UserError` for a task that cannot be scored,
    `InfraError` for a lost machine.
    """

    async def profile(self, request: ProfileRequest) -> Profiled: ...


class Backend(Protocol):
    """One device, local or remote, that judges sources.

    `evaluate` may be called concurrently, up to `max_in_flight` calls, and keeps the order:
    `len(results) == len(requests)`. A bad source is a `Result`; a lost machine raises `InfraError`, and
    then none of the call's requests counts as evaluated. `open` starts or finds the device.
    """

    max_in_flight: int
    max_batch: int

    async def open(self) -> BackendStatus: ...

    async def evaluate(self, requests: Sequence[EvalRequest]) -> list[Result]: ...

    async def status(self) -> BackendStatus: ...

    async def close(self) -> None: ...
