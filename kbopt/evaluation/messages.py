"""What the processes of the evaluator say to each other: each message is defined here alone, and `core.codec`
reads it.

Not here is what a worker answers, which its reader does not believe (`judge.replies`, `transport.untrusted`),
and what a judge asks of it a hundred times a second (`judge.worker`). Memory is in bytes, shares are of the
device's memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from kbopt.core.profile import DeviceFacts, Limits
from kbopt.core.types import EvalProtocol, Measured, Outcome, Precision, Span
from kbopt.evaluation.timing.pairs import Pair
from kbopt.leanbuild.toolchain import Toolchain


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a sandbox's child ended, as its init process saw it: one of these is set, or `how` says more."""

    how: str = "killed"
    signal: int | None = None
    exit: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceInfo:
    """`boot` names this start of the service, `started` is in Unix seconds.

    `is_isolated` says that a candidate reaches neither the user's files, nor the network, nor other
    processes; `isolation` says by what.
    """

    device: str
    boot: str
    started: float
    pid: int
    isolation: str = ""
    is_isolated: bool = True
    is_cuda: bool = False


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
    lie, `arithmetic` what its machine code was seen to multiply in. With `held_out` it is judged on the
    workloads that a search does not see, too. Answered by `Verdict`.
    """

    source: str
    setup: str
    protocol: EvalProtocol
    init: int
    held_out: bool = False
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
    held_out: bool = False


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
    """What the table of admitted tasks, and a profile, say of this one."""

    reference_ms: float
    limits: Limits
    facts: DeviceFacts
    inputs_bytes: int
    outputs_bytes: int
    device_bytes: int
    tolerance: float
    keeps_state: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Of `Judge` what was `measured` on each of the judged workloads, of `TimeAgain` a pair for each, unless
    something went wrong: then there is an `outcome`, or none of them where the candidate's worker died, of
    which the server knows how. `frames` are lines of its source.
    """

    outcome: Outcome | None
    measured: tuple[Measured, ...]
    pairs: tuple[Pair, ...]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """To a worker that will be judged: create its CUDA context, find its builds, and load Triton's driver for
    whoever launches by it.
    """

    device: str
    setup: str
    triton: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """To a worker that builds: import `source`. With a `task_source` its model is constructed and called too.
    With `backward` that call is both passes, on a CPU: without a device autograd does not run. `arch` is the
    device's, for kernels that are compiled where no device is.
    """

    source: str
    setup: str
    task_source: str
    device: str
    precision: Precision
    backward: bool
    arch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelBench:
    """To a worker that runs KernelBench's own protocol."""

    task_source: str
    source: str
    setup: str
    device: str
    threads: int
    protocol: EvalProtocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileCall:
    """To a worker that profiles a call of `source`, by a trace or by counters. It says when it needs the
    device, and waits for an answer.
    """

    task_source: str
    source: str
    setup: str
    device: str
    threads: int
    protocol: EvalProtocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Dissect:
    """To a worker that lists the kernels in the machine code of a build."""

    folder: str
    on_cuda: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspect:
    """To a worker that reads the machine code of a build."""

    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """To the process that looks for devices. Answered by `Surveyed`."""

    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """The names of the CUDA devices that torch finds, unless only the CPU was asked for. Of the wanted one
    its PCI address, and its name for CUDA_VISIBLE_DEVICES where it is a whole GPU.
    """

    cuda: tuple[str, ...]
    bus: str
    uuid: str
    toolchain: Toolchain
