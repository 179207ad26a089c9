"""What the server and a judge say to each other. Each message is defined here alone; `core.codec` reads it.

Both sides are trusted. What comes from a worker is read by `judge.replies`, which believes nothing of it.
Memory is in bytes, shares are of the device's memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from kbopt.core.types import EvalProtocol, Outcome, Span
from kbopt.evaluation.timing.pairs import Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The first message. With it come the two descriptors of the worker that runs the reference.

    `init` is the first process of that worker's sandbox.
    """

    source: str
    protocol: EvalProtocol
    device: str
    threads: int
    memory_bytes: int
    init: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Construct:
    """Load the task and make its model. Answered by `Done`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weigh:
    """Draw inputs once. Answered by `Sizes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """On a GPU, run the reference once. Answered by `DeviceShare`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit:
    """Find out whether the task can be scored. Answered by `Ready`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Describe:
    """Answered by `Description`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Judge a candidate whose worker's two descriptors come with this. `setup` says where its compiled parts
    lie, `arithmetic` what its machine code was seen to multiply in. Answered by `Verdict`.
    """

    source: str
    setup: str
    protocol: EvalProtocol
    init: int
    arithmetic: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeAgain:
    """Time a candidate that was judged in another worker, beside another one that runs the reference from now
    on: two descriptors of either. Answered by `Verdict`.
    """

    source: str
    setup: str
    protocol: EvalProtocol
    init: int
    reference_init: int


ToJudge = Start | Construct | Weigh | Size | Admit | Describe | Judge | TimeAgain


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """It is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of the task's data, and the most that the judge has held, shared inputs included."""

    inputs_bytes: int
    outputs_bytes: int
    parameters_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceShare:
    """What admitting the task takes."""

    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The task was admitted; judging a candidate takes `needed_share` beyond what is held now."""

    needed_share: float
    sizes: Sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What the table of admitted tasks says of this one."""

    reference_ms: float
    floor_ms: float
    reference_ops_ms: float
    inputs_bytes: int
    outputs_bytes: int
    device_bytes: int
    tolerance: float
    keeps_state: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Of `Judge` the `outcome`, of `TimeAgain` a `pair` unless something went wrong. Neither is there where
    the candidate's worker died: the server knows how. `frames` are lines of its source.
    """

    outcome: Outcome | None
    pair: Pair | None
    frames: str
    spans: tuple[Span, ...]
    device_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFault:
    """The task cannot be scored, and the judge has ended. `died` where the worker of the reference did."""

    reason: str
    no_memory: bool
    died: bool


FromJudge = Done | Sizes | DeviceShare | Ready | Description | Verdict | TaskFault


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`free_share` is what nobody takes of the device's memory."""

    content: FromJudge
    free_share: float = 1.0
