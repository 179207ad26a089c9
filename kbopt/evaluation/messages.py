"""The messages between the evaluator's processes. Each is defined here once, and `core.codec` encodes it.

Others are elsewhere: those between a judge and its workers (`worker_messages`), to the fork server
(`sandbox.forks`), and between the service and its client (`service_messages`). Memory is in bytes, and shares
are of the device's memory.

A worker runs a candidate, so nothing that it says is trusted: `transport.untrusted` decodes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from kbopt.core.evaluations import Span
from kbopt.core.outcomes import Measured, Outcome, Stage
from kbopt.core.profile import DeviceFacts, Limits
from kbopt.core.protocol import EvalProtocol, Precision
from kbopt.evaluation.timing.samples import Times
from kbopt.leanbuild.toolchain import Toolchain


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The first message to a judge. It carries the two descriptors of the worker that runs the reference.

    `init` is the pid of the init process of that worker's sandbox. Answered by `Done`.
    """

    source: str
    protocol: EvalProtocol
    device: str
    threads: int
    memory_bytes: int
    init: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Construct:
    """Load the task and construct its model. Answered by `Done`."""


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
    """Time the reference and describe the task. Answered by `Description`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Judge a candidate. The message carries the two descriptors of its worker. Answered by `Verdict`.

    `setup` says where its build lies, and `arithmetic` what its machine code multiplies in. With `held_out`
    it is also judged on the workloads that a search does not see.
    """

    source: str
    setup: str
    protocol: EvalProtocol
    init: int
    held_out: bool = False
    arithmetic: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeAgain(Judge):
    """Judge a candidate again in a new worker, beside a new worker that runs the reference from now on.

    The message carries two descriptors of each. Answered by `Verdict`.
    """

    reference_init: int


ToJudge = Construct | Weigh | Size | Admit | Describe | Judge | TimeAgain


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The request was carried out. It has no other answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The sizes of one set of a task's inputs, of its outputs and its parameters, at its precision.

    Until the reference has run, its outputs are assumed to be as large as its inputs. `peak_bytes` is the
    judge's peak memory, shared inputs and activations of the reference included.
    """

    inputs_bytes: int
    outputs_bytes: int
    parameters_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceShare:
    """The share of the device's memory that admission of the task takes."""

    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The task was admitted. To judge a candidate takes `needed_share` more than is held now."""

    needed_share: float
    sizes: Sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The figures of a task, for the table of admitted tasks and for profiles."""

    reference_ms: float
    limits: Limits
    facts: DeviceFacts
    inputs_bytes: int
    outputs_bytes: int
    device_bytes: int
    tolerance: float
    keeps_state: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered:
    """A candidate is in another stage now. It comes before an answer, and is none."""

    stage: Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer to `Judge` (`measured` on each workload) and to `TimeAgain` (`pairs`, one for each
    workload).

    If the candidate failed, both are empty and `outcome` says how; if its worker died, `outcome` is None too,
    because the server knows how it died. `frames` are the lines of a traceback in the candidate's source.
    `failed_allocations` counts how often the workers of a measured candidate and of the reference found no
    room on the device. `untried` names the kinds of values for which a measured candidate had no time.
    """

    outcome: Outcome | None
    measured: tuple[Measured, ...]
    failed_allocations: int
    pairs: tuple[Times, ...]
    untried: tuple[str, ...]
    frames: str
    spans: tuple[Span, ...]
    device_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFault:
    """The task cannot be scored, and the judge has ended. `died` says that the reference's worker died."""

    reason: str
    no_memory: bool
    died: bool


FromJudge = Done | Sizes | DeviceShare | Ready | Description | Entered | Verdict | TaskFault


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A judge's answer, with the share of the device's memory that is free."""

    content: FromJudge
    free_share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """Have a worker create its CUDA context, find its build and, with `triton`, load Triton's driver.

    Answered by `Done`.
    """

    device: str
    setup: str
    triton: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """Have a worker import `source`, which builds it; with a `task_source`, also call its model.

    With `backward` that call is both passes on a CPU; without a device autograd does not run. `arch` is the
    device's compute capability, for kernels that are compiled without a device. Answered by `BuildDone`,
    `Raised` or `SourceRefused`.
    """

    source: str
    setup: str
    task_source: str
    device: str
    precision: Precision
    backward: bool
    arch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallBoth:
    """Have a worker judge `source` by KernelBench's own protocol, or profile a call of it.

    The worker's role says which. It sends `NeedsDevice` when it does, and waits for `Go`. Answered by
    `KernelBenchVerdict`, or by `Trace`, `Counters` or `Missing`, and if it could not be called by `Raised` or
    `SourceRefused`.
    """

    task_source: str
    source: str
    setup: str
    device: str
    threads: int
    protocol: EvalProtocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Dissect:
    """Have a worker list the kernels in the machine code of a build, or its matrix instructions.

    The worker's role says which. Answered by `Code` or `Missing`, or by `Arithmetic`.
    """

    folder: str
    on_cuda: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """An exception in a worker: its type's name, its text, and the candidate's lines of its traceback.

    It is `lasting` if another attempt to build the source would raise it too.
    """

    kind: str
    text: str
    frames: str
    lasting: bool = False

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRefused:
    """The source defines no model. That is `lasting` if it does not parse."""

    reason: str
    lasting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildDone:
    """The source ran to its end.

    It is not `whole` if the source went on without an extension that could not be compiled because of the
    machine.
    """

    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedsDevice:
    """The worker has loaded its sources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """The worker may use the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """The half-precision and TF32 instructions in a build, such as `half: HMMA.16816.F32 in kernel.so`."""

    found: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Look for devices and compilers. Answered by `Surveyed`."""

    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """The names of the CUDA devices that torch finds; none if only the CPU was asked for.

    `bus` is the PCI address of the wanted device and `uuid` its name for CUDA_VISIBLE_DEVICES. Both are ""
    without such a device, and for a MIG instance.
    """

    cuda: tuple[str, ...]
    bus: str
    uuid: str
    toolchain: Toolchain
