"""The values that cross boundaries: between processes, to disk, and over the network.

Everything here is frozen and made of plain data, so that `kbopt.core.codec` can write it as JSON and
read it back equal. Times in names carry their unit; wall-clock instants are Unix seconds.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from kbopt.core.kernel_strategies import KernelStrategy
from kbopt.core.workloads import Role

Precision = Literal["fp32", "fp16", "bf16"]
TorchOps = Literal["allow", "warn", "forbid"]
Arithmetic = Literal["default", "ieee", "tf32"]
Outputs = Literal["fresh", "reusable"]
Baseline = Literal["eager", "compile", "best"]
Clock = Literal["device", "latency"]
Verdict = Literal["strict", "kernelbench", "both"]
Stage = Literal["queue", "compile", "check", "time"]
Family = Literal[
    "aliased_input",
    "extra_threads",
    "forged_verdict",
    "implausible",
    "input_mutation",
    "output_layout",
    "output_type",
    "precision_downgrade",
    "reused_output",
    "timing_mismatch",
    "torch_ops",
    "value_specialisation",
]
"""Why a candidate is rejected; docs/evaluation.md says what each is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A KernelBench problem: `source` defines `Model`, `get_inputs()` and `get_init_inputs()`.

    `family` names the kind of kernel that fits (`elementwise`, `softmax`, `matmul`, ...) and chooses the
    seed kernels; it is empty for a task that kbopt ships no seeds for.
    """

    name: str
    source: str
    family: str = ""

    @property
    def key(self) -> str:
        """Content hash of what is computed: the same for the same source under another name."""
        return hashlib.sha256(self.source.encode()).hexdigest()[:16]

    @property
    def is_path(self) -> bool:
        """Whether it was read from a file or a folder, whose path is then its name."""
        return self.name.endswith(".py") or "#" in self.name

    @property
    def short_name(self) -> str:
        """The name, of a path the last part alone: `swish` for `my/swish.py`, `norm#2` for `my/norm#2`."""
        return self.name.rpartition("/")[2].removesuffix(".py") if self.is_path else self.name

    @property
    def equal_code(self) -> str:
        """The task's own model as a candidate: an honest judge on a steady machine calls it 1.0x."""
        return f"{self.source}\n\nModelNew = Model\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalProtocol:
    """How a candidate is judged. Two results are comparable when their `id`s and devices agree.

    `trials`: correctness checks, each on fresh inputs. `timed`: timed calls of either model.
    `arithmetic` is what fp32 tasks may compute in: PyTorch's `default` (fp32 products, TF32 in convolutions),
    `ieee` (no TF32) or `tf32` (TF32 everywhere); the reference runs so too. `outputs` says whether each call
    has to return memory of its own. `baseline` and `clock` choose the speedup that ranks: over eager PyTorch,
    `torch.compile` or the fastest baseline; by the device's work or by what one synchronised call takes.
    `eval_mode` runs both models after `Module.eval()`. With `backward` a call is forward and
    backward, and its gradients are outputs. `timeout_s` bounds check and timing together,
    `compile_timeout_s` the build before it; both are seconds of wall clock.
    """

    trials: int = 5
    timed: int = 100
    precision: Precision = "fp32"
    torch_ops: TorchOps = "warn"
    arithmetic: Arithmetic = "default"
    outputs: Outputs = "fresh"
    baseline: Baseline = "eager"
    clock: Clock = "device"
    eval_mode: bool = False
    backward: bool = False
    timeout_s: float = 60.0
    compile_timeout_s: float = 300.0

    @property
    def id(self) -> str:
        """Every field that can change a verdict: `rules`, and the limits of time."""
        return f"{self.rules}/{self.timeout_s:g}s+{self.compile_timeout_s:g}s"

    @property
    def rules(self) -> str:
        """Every field that can change the verdict of a candidate which is in time. The leading number is the
        version of the rules: docs/evaluation.md says when it is raised.
        """
        unusual = [
            value
            for value, usual in (
                (self.arithmetic, "default"),
                (f"{self.outputs}-outputs", "fresh-outputs"),
                (f"over-{self.baseline}", "over-eager"),
                (self.clock, "device"),
                ("eval-mode" if self.eval_mode else "", ""),
                ("backward" if self.backward else "", ""),
            )
            if value != usual
        ]
        parts = (self.precision, *unusual, f"{self.trials}x{self.timed}", f"torch-{self.torch_ops}")
        return "/".join(("strict-5", *parts))


def ranked_by(protocol: str) -> tuple[Baseline, Clock]:
    """What the protocol with this id ranks by."""
    parts = protocol.split("/")
    named = [baseline for baseline in get_args(Baseline) if f"over-{baseline}" in parts]
    return (named[0] if named else "eager"), ("latency" if "latency" in parts else "device")


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


LEAST_OPERATIONS = 0.01
"""Share of the floor by bytes. Where operations need less, as the 1e-11 ms of a cross entropy do, no reader
needs to know of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """What a call costs at the least, and how near the kernel came to it.

    `floor_ms` is the time to read `size_bytes` of inputs and parameters once and write the outputs once, at
    the measured bandwidth. `share` is that floor over the kernel's time, at most 1: what a cache holds, or
    structure that need not be read, can make a kernel faster than it. `reference_ops_ms` is what the
    reference's own `operations` need at the peak of the task's arithmetic; a better algorithm, or a split
    onto other units, needs less.
    """

    size_bytes: int
    operations: int
    floor_ms: float
    share: float
    reference_ops_ms: float

    @property
    def limited_by_operations(self) -> bool:
        """Whether the reference's operations need longer than its bytes."""
        return self.reference_ops_ms > self.floor_ms

    @property
    def operations_count(self) -> bool:
        """Whether the reference's operations need so much that they are worth a word."""
        return self.reference_ops_ms >= LEAST_OPERATIONS * self.floor_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """How many times as fast the kernel is as one baseline by one clock, with its 95 % interval.

    `baseline` is `eager`, `compile`, `max-autotune` or `cuda-graph`; `clock` is `device` or `latency`.
    Milliseconds are medians of single calls. Where a baseline does not run, `reason` says why and the figures
    are zero.
    """

    baseline: str
    clock: Clock
    baseline_ms: float = 0.0
    kernel_ms: float = 0.0
    speedup: float = 0.0
    interval: tuple[float, float] = (0.0, 0.0)
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadTimes:
    """What a kernel and eager PyTorch take on one workload of several, by the device's clock.

    Milliseconds are medians of single calls, `interval` is the speedup's 95 % interval, and `floor_ms` what
    moving the workload's bytes once takes. What is `held_out` counts in no mean.
    """

    name: str
    role: Role
    weight: float
    kernel_ms: float
    reference_ms: float
    speedup: float
    interval: tuple[float, float]
    floor_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What was seen inside the candidate, for the reader to judge.

    `torch_ops` lists the ATen operations that computed something; `custom_kernel` is False for a
    candidate that only calls PyTorch. `notes` are sentences.
    """

    custom_kernel: bool
    torch_ops: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Correct, and timed against the reference in the same session.

    `kernel_ms` and `reference_ms` are samples of single calls, interleaved in blocks, by the device's clock.
    `speedup` is the one that ranks, by the protocol's baseline and clock: median(reference_ms) /
    median(kernel_ms) by default; `speedup_ci` is its 95 % interval. `wall_ms` is the candidate's median by
    the judge's clock, and on a GPU `native_ms` that by the worker's; a CPU has the first only. `speedups`
    are those over every baseline that was asked for, by either clock. `equal_code` is what the task's own
    model was measured at over itself, where the baselines were asked for: 1 outside of its interval says
    that this machine's figures are not steady.

    Of a task of several `workloads` all times and speedups are weighted geometric means over those that are
    not held out; the table has each by itself, and is empty for a task that names none.
    """

    kernel_ms: tuple[float, ...]
    reference_ms: tuple[float, ...]
    speedup: float
    speedup_ci: tuple[float, float]
    native_ms: float | None
    wall_ms: float
    audit: Audit
    roofline: Roofline | None = None
    speedups: tuple[Speedup, ...] = ()
    equal_code: Speedup | None = None
    workloads: tuple[WorkloadTimes, ...] = ()

    @property
    def worst(self) -> WorkloadTimes | None:
        """The workload with the least speedup, of those that count; None for a task that names none."""
        counted = (w for w in self.workloads if w.role != "held_out")
        return min(counted, key=lambda w: w.speedup, default=None)

    def mean_of(self, *roles: Role) -> float | None:
        """The weighted geometric mean of the speedups over eager on the workloads of these roles."""
        found = [w for w in self.workloads if w.role in roles]
        if not found or min(w.speedup for w in found) <= 0:
            return None
        total = sum(w.weight for w in found)
        return math.exp(sum(w.weight * math.log(w.speedup) for w in found) / total)

    def over(self, baseline: str, clock: Clock = "device") -> Speedup | None:
        """The speedup over that baseline, None where it was not asked for."""
        found = (s for s in self.speedups if s.baseline == baseline and s.clock == clock)
        return next(found, None)

    @property
    def call_ms(self) -> tuple[float, float]:
        """What one call of the kernel and one of the reference take: those whose quotient is the speedup over
        eager.
        """
        over = self.over("eager")
        if over is None:
            return statistics.median(self.kernel_ms), statistics.median(self.reference_ms)
        return over.kernel_ms, over.baseline_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongAnswer:
    """It ran and returned something else than the reference does."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileFailed:
    """It does not parse, import or build, or defines no `ModelNew`.

    `lasting` says that the next try would fail too, because Python or a compiler refuses the source itself.
    Other causes can go away: a missing header or package, a full disk.
    """

    reason: str
    lasting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Crashed:
    """It raised, or its process died. `how` is the exception's or the signal's name, or `exit N`."""

    reason: str
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut:
    """It did not finish `stage` within `limit_s` seconds, and was killed."""

    reason: str
    stage: Stage
    limit_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Its answers or its times cannot be believed."""

    reason: str
    family: Family


Outcome = Measured | WrongAnswer | CompileFailed | Crashed | TimedOut | Rejected

OUTCOME_NAMES: Mapping[type, str] = {
    Measured: "measured",
    WrongAnswer: "wrong_answer",
    CompileFailed: "compile_failed",
    Crashed: "crashed",
    TimedOut: "timed_out",
    Rejected: "rejected",
}


def outcome_name(outcome: Outcome) -> str:
    """The outcome as JSON and tables spell it: `measured`, `wrong_answer`, ..."""
    return OUTCOME_NAMES[type(outcome)]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelBenchVerdict:
    """KernelBench's own `KernelExecResult`, field for field, for comparison with published numbers.

    Milliseconds; -1.0 where KernelBench leaves a time unmeasured. The mappings hold plain JSON.
    """

    compiled: bool
    correctness: bool
    metadata: Mapping[str, object]
    runtime: float
    runtime_stats: Mapping[str, object]
    ref_runtime: float
    ref_runtime_stats: Mapping[str, object]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one model was paid for. `usd` is None where the model's price is not known."""

    model: str
    requests: int = 1
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rent:
    """Seconds of rented containers with one type of GPU, and their price in US dollars."""

    gpu: str
    seconds: float
    usd: float

    def plus(self, other: Rent) -> Rent:
        """The sum of two rents of the same GPU."""
        return Rent(gpu=self.gpu, seconds=self.seconds + other.seconds, usd=self.usd + other.usd)

    def share(self, of: int) -> Rent:
        """One of `of` equal parts."""
        return Rent(gpu=self.gpu, seconds=self.seconds / of, usd=self.usd / of)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One proposed source. `id` is the id of the brief that it answers.

    `memory_version` counts the results the search had seen when the brief was written; the difference to
    the count at `tell` is the candidate's staleness. `proposer` names who wrote it (`tunables`,
    `llm:openai/gpt-5`), `note` what was changed, in one line.
    """

    id: str
    source: str
    parent: str | None
    proposer: str
    memory_version: int
    note: str = ""
    usage: tuple[Usage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A candidate with its measurements, oldest first. Never empty once the search has been told.

    The last `num_finals` of them were made after the search's end. Choosing the best of many by a measurement
    makes that measurement too good, so those alone say how fast it is, where there are any. `full` is the
    winner's evaluation with every baseline and KernelBench's verdict, by which it is not scored. A candidate
    that fails it wins only if no other one works. Where it could not be made, `why_no_full` says why.
    """

    candidate: Candidate
    results: tuple[Result, ...]
    num_finals: int = 0
    full: Result | None = None
    why_no_full: str = ""

    @property
    def judged(self) -> tuple[Result, ...]:
        """The measurements by which it is scored."""
        return self.results[-self.num_finals :] if self.num_finals else self.results

    @property
    def is_refuted(self) -> bool:
        """Whether its evaluation in full failed, such as on a workload that the search had not judged."""
        return self.full is not None and not isinstance(self.full.outcome, Measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """A complete source that a search may start from; `name` is also in its `# seed:` line."""

    name: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """All that a proposer may know: the only edge from the search back to the proposers.

    `parent` is None where the task's first kernel is asked for. `exemplars` are other good kernels, best
    first. `seed` is the only source of randomness a proposer may use. `action` is `refine` where the
    parent's `# tune:` comments should be varied at no cost in tokens. `evidence` is what a profile says of
    the parent, of the reference where there is none; empty where nothing is known. `strategy` is the way in
    which a first kernel is to be built; None leaves that open.
    """

    id: str
    task: Task
    parent: Trial | None
    exemplars: tuple[Trial, ...]
    summary: str
    seed: int
    memory_version: int
    action: Literal["propose", "refine"] = "propose"
    evidence: str = ""
    strategy: KernelStrategy | None = None


Blame = Literal["brief", "answer", "service"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoProposal:
    """A proposer that had nothing to offer for a brief: data, not an exception.

    `blame` says what was to blame: the `brief`, to which there is no answer, the model's `answer`, or the
    `service`.
    """

    reason: str
    usage: tuple[Usage, ...] = ()
    blame: Blame = "brief"
