"""What a profile says of a kernel: what was built, what one call runs, and what the hardware counted.

A profile explains a time and is none: it is taken beside the judge, from a process that runs the candidate,
and nothing is ranked by it. Names and texts in it were cleaned and cut where they came out of that process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kbopt.core.kernel_strategies import Bound
from kbopt.core.outcomes import LEAST_OPERATIONS
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRequest:
    """One source to be profiled on its task. With `counters` Nsight Compute is asked too."""

    task: Task
    source: str
    protocol: EvalProtocol
    counters: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A tier that is not there, and why: what was seen, and what would make it work."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A kind of instruction, and its share of a kernel's instructions, from 0 to 1."""

    kind: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCode:
    """One kernel in the machine code that was built.

    `target` is an architecture such as `sm_90` or `x86-64`. `vector_bits` is the widest load or store of
    global memory on a GPU, the widest arithmetic on a CPU; 0 where there is neither. `mix` counts
    instructions as they are written, not as often as they run. Registers are per thread and bytes of shared
    memory per block, without what a launch adds; `local_bytes` are spilled registers and arrays that lie in
    memory, per thread. The three are None on a CPU.
    """

    name: str
    target: str
    instructions: int
    vector_bits: int
    mix: tuple[Share, ...]
    registers: int | None = None
    shared_bytes: int | None = None
    local_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """The kernels that were built, those with the most arithmetic first."""

    kernels: tuple[KernelCode, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a kernel was launched. `occupancy` is the share of a multiprocessor's warps that can be resident at
    once by registers, shared memory and threads per block, and `limited_by` which of them ends it; 0 and ""
    where the limits of the GPU are not known.
    """

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    registers: int
    shared_bytes: int
    occupancy: float = 0.0
    limited_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a call spends time in: a kernel or copy on a GPU, on a CPU an ATen operation or the rest of the
    call. `us` are microseconds of all `calls` in one call of the model, `share` is of all parts.
    """

    name: str
    calls: int
    us: float
    share: float
    launch: Launch | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One call of a model by torch's profiler: the median of a few. Longest part first.

    `call_us` is from the beginning of the first part to the end of the last, `busy_us` what parts took of
    that; profiling makes calls of microseconds longer. `num_parts` counts launches, those that are not listed
    too. `gbps` and `tflops` are the task's bytes, each moved once, and the reference's operations over
    `busy_us`.
    """

    call_us: float
    busy_us: float
    num_parts: int
    parts: tuple[Part, ...]
    gbps: float
    tflops: float

    @property
    def gap_share(self) -> float:
        """Of the call, in which none of its parts ran."""
        return max(0.0, 1 - self.busy_us / self.call_us) if self.call_us else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One launch by Nsight Compute. Percentages are of the hardware's peak while the kernel ran, `stall` the
    reason for which warps waited most, with cycles per instruction issued.
    """

    name: str
    us: float
    compute_pct: float
    dram_pct: float
    l2_pct: float
    occupancy_pct: float
    l2_hit_pct: float
    dram_bytes: int
    stall: str
    stall_cycles: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """The launches of one call, longest first."""

    kernels: tuple[Counted, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the task asks for at the least, as in a `Roofline`: bytes moved once over the bandwidth, the
    reference's operations over the peak. Milliseconds.
    """

    size_bytes: int
    operations: int
    floor_ms: float
    operations_ms: float

    @property
    def operations_count(self) -> bool:
        """Whether the reference's operations need so much that they are worth a word."""
        return self.operations > 0 and self.operations_ms >= LEAST_OPERATIONS * self.floor_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """The device as the judge knows it.

    `bandwidth_gbps` is what a copy reached; `peak_tflops` by arithmetic is a data sheet's, else what a
    product reached. `units` are multiprocessors or a CPU's threads. `cache_bytes` is the last level of cache,
    `shared_bytes` what one block may have of shared memory, 0 on a CPU. `versions` are those of libraries.
    """

    name: str
    bandwidth_gbps: float
    peak_tflops: Mapping[str, float]
    units: int
    cache_bytes: int
    shared_bytes: int
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number that shows something."""

    what: str
    value: float
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bottleneck:
    """What limits a kernel, three figures that show it, and one thing to try. `by` is where it was seen."""

    bound: Bound
    figures: tuple[Figure, Figure, Figure]
    suggestion: str
    by: Literal["counters", "trace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TierSeconds:
    """Wall-clock seconds: waiting for the device to be idle, the build, and each tier with its processes.
    `device` are those in which the profile held the device.
    """

    waiting: float = 0.0
    build: float = 0.0
    code: float = 0.0
    trace: float = 0.0
    counters: float = 0.0
    device: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """All tiers of one source on one task. `reference` is the trace of the task's own model, by which the
    candidate's can be compared; `bottleneck` is None where no tier says enough.
    """

    device: DeviceFacts
    limits: Limits
    code: Code | Missing
    trace: Trace | Missing
    counters: Counters | Missing
    reference: Trace | Missing
    bottleneck: Bottleneck | None
    seconds: TierSeconds


@dataclass(frozen=True, slots=True, kw_only=True)
class NotProfiled:
    """A source that could not be built or called, and why."""

    reason: str


Profiled = Profile | NotProfiled
