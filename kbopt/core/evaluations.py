"""What the evaluator is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kbopt.core.outcomes import Outcome, Stage
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalRequest:
    """One source to be judged. `repeat` > 0 asks for a new measurement of a source already measured.

    `kernelbench` and `baselines` ask for what is too slow for each candidate of a search: KernelBench's own
    verdict, the speedup over every baseline, and with that what the task's held-out workloads say.
    """

    task: Task
    source: str
    protocol: EvalProtocol
    repeat: int = 0
    kernelbench: bool = False
    baselines: bool = False

    @property
    def is_compared(self) -> bool:
        """Whether more than eager PyTorch is run beside it: another baseline, or KernelBench's protocol."""
        return self.kernelbench or self.baselines or self.protocol.baseline != "eager"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelBenchVerdict:
    """KernelBench's own `KernelExecResult`, field for field, for comparison with published numbers.

    Milliseconds; -1.0 where KernelBench leaves a time unmeasured. The mappings hold plain JSON.
    """

    compiled: bool
    correctness: bool
    metadata: Mapping[str, object]
    runtime: float = -1.0
    runtime_stats: Mapping[str, object] = field(default_factory=dict)
    ref_runtime: float = -1.0
    ref_runtime_stats: Mapping[str, object] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """Why it is not correct, in KernelBench's words; empty where its process did not say."""
        keys = ("compilation_error", "runtime_error", "correctness_issue")
        return next((str(self.metadata[key]) for key in keys if key in self.metadata), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Where an evaluation's wall-clock time went."""

    queue: float = 0.0
    compile: float = 0.0
    check: float = 0.0
    time: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One stage of one evaluation on the wall clock, for time lines. `start` is in Unix seconds."""

    stage: Stage
    start: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The evaluator's answer for one source.

    `device` is the device that answered and `boot` the container or worker process it answered from.
    `device_s` counts the seconds in which the device ran the reference or the candidate. `log` is the
    compiler's output, bounded; `feedback` is text for the next proposal.
    """

    outcome: Outcome
    feedback: str
    device: str
    protocol: str
    boot: str
    seconds: Seconds
    device_s: float
    spans: tuple[Span, ...] = ()
    kernelbench: KernelBenchVerdict | None = None
    log: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A task that can be scored on `device`, and what that takes.

    `reference_ms` is the median of a few calls of the reference, `floor_ms` and `reference_ops_ms` are as in
    a `Roofline`. `device_bytes` of a GPU's memory are taken while a candidate is judged, 0 on a CPU, and
    `host_bytes` of the host's, more where the candidate runs a compiler. `seconds` is what admission took.
    """

    device: str
    seconds: float
    reference_ms: float
    floor_ms: float
    reference_ops_ms: float
    device_bytes: int
    host_bytes: int
    inputs_bytes: int
    outputs_bytes: int
    tolerance: float
    keeps_state: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A task that cannot be scored on `device`. `test` is the admission test that it failed, empty where it
    did not get that far.
    """

    device: str
    seconds: float
    test: str
    reason: str


TaskReport = Admitted | Refused
