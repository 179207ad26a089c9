"""The messages between the service and its client, each a line of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest, Result, TaskReport
from kbopt.core.ports import Phase
from kbopt.core.profile import Profiled, ProfileRequest

Kind = Literal["evaluate", "describe", "profile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceInfo:
    """What a service says about itself.

    `boot` names this start of the service; `started` is its time in Unix seconds. `is_isolated` says that a
    candidate can reach neither users' files nor the network nor other processes, and `isolation` by which
    means.
    """

    device: str
    boot: str
    started: float
    pid: int
    isolation: str = ""
    is_isolated: bool = True
    is_cuda: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request to the service. Answered by `Told` of the same number, in any order."""

    id: int
    kind: Kind
    request: EvalRequest | ProfileRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why there is no other answer. It is the user's to mend, or the machine failed."""

    reason: str
    of_user: bool

    @property
    def error(self) -> UserError | InfraError:
        return UserError(self.reason) if self.of_user else InfraError(self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseCounts:
    """How many of the service's requests are in each phase."""

    phases: Mapping[Phase, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An answer of the service. Number 0 answers none: that it can evaluate, or why not, and its activity."""

    id: int
    content: ServiceInfo | Result | TaskReport | Profiled | Failure | PhaseCounts
