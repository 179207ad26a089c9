"""What limits a kernel, by counters where there are any, else by its trace and the task's limits. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from kbopt.core.kernel_strategies import Bound
from kbopt.core.profile import (
    Bottleneck,
    Code,
    Counted,
    Counters,
    Figure,
    KernelCode,
    Limits,
    Missing,
    Profile,
    Trace,
)

_BUSY_PCT = 60.0
"""Percent of peak from which a unit is taken for the limit. Nsight Compute's own rule of speed of light:
below 60 % of compute and memory both, a kernel waits."""
_NEAR = 0.6
"""The same for a trace: the share of a call's time that its bytes or operations need at the least."""
_GAP_SHARE = 0.3
"""Of a call without any kernel running, from which launching is the limit: a third could be won by fusing."""
_SHORT_US = 4.0
"""Microseconds of a kernel that cost as much to launch as to run: about 2 to 4 us of a CUDA host."""
_DISPATCH_US = 2.0
"""Microseconds that PyTorch takes to dispatch one operation on a CPU, its output's allocation included: an
addition of eight floats took 2.1 to 3.3 us on an AMD EPYC with torch 2.13."""
_FEW_WARPS = 0.34
"""Occupancy below which too few warps hide latency: with a third, a scheduler has five to choose from."""
_RELOADS = 1.5
"""Times the task's bytes that a call moves, from which data are read again that need not be."""
_WIDE_BITS = 128
"""The widest load of a thread on a GPU, and SSE's registers on a CPU, which every x86-64 has."""


def bottleneck(
    limits: Limits,
    trace: Trace | Missing,
    counters: Counters | Missing,
    code: Code | Missing,
    *,
    on_cuda: bool,
) -> Bottleneck | None:
    """What limits the call. None where nothing was traced, and without counters where the call is far from
    the limit by bytes and too fast to do the reference's operations.
    """
    if isinstance(trace, Missing) or not trace.busy_us:
        return None
    kernels = code.kernels if isinstance(code, Code) else ()
    if _is_launching(trace, on_cuda=on_cuda):
        return Bottleneck(
            bound="launch",
            figures=(
                Figure(
                    what="idle between kernels" if on_cuda else "idle in a call",
                    value=100 * trace.gap_share,
                    unit="%",
                ),
                Figure(
                    what="kernels a call" if on_cuda else "operations a call", value=trace.num_parts, unit=""
                ),
                Figure(what="mean time of one", value=trace.busy_us / max(1, trace.num_parts), unit="us"),
            ),
            suggestion=_FUSE,
            by="trace",
        )
    if isinstance(counters, Counters) and counters.kernels:
        return _by_counters(limits, counters, kernels)
    return _by_trace(limits, trace, kernels, on_cuda=on_cuda)


def bounds_of(reference: Profile) -> tuple[Bound, ...]:
    """What limits the task, most telling first: the reference's own bottleneck, then the higher of the task's
    two floors, then launches where the reference makes several.
    """
    found: list[Bound] = [reference.bottleneck.bound] if reference.bottleneck else []
    limits = reference.limits
    if max(limits.floor_ms, limits.operations_ms) > 0:
        found.append("compute" if limits.operations_ms > limits.floor_ms else "memory")
    if isinstance(reference.trace, Trace) and reference.trace.num_parts > 1:
        found.append("launch")
    return tuple(dict.fromkeys(found))


_FUSE = "Do the work in fewer kernels: fuse what follows one another, so that a call launches one or two."
_ASK_LESS = (
    "The bytes are near the least that the task needs: only a narrower type of intermediate values, or "
    "fusing with what comes before or after, saves more."
)


def _is_launching(trace: Trace, *, on_cuda: bool) -> bool:
    mean_us = trace.busy_us / max(1, trace.num_parts)
    if not on_cuda:
        return trace.num_parts > 2 and mean_us < 2 * _DISPATCH_US
    return trace.num_parts > 1 and (trace.gap_share > _GAP_SHARE or mean_us < _SHORT_US)


def _by_counters(limits: Limits, counters: Counters, kernels: Sequence[KernelCode]) -> Bottleneck:
    slowest = max(counters.kernels, key=lambda kernel: kernel.us)
    moved = sum(kernel.dram_bytes for kernel in counters.kernels)
    memory_pct = max(slowest.dram_pct, slowest.l2_pct)
    dram = Figure(what="DRAM bandwidth in use", value=slowest.dram_pct, unit="%")
    l2 = Figure(what="L2 bandwidth in use", value=slowest.l2_pct, unit="%")
    compute = Figure(what="compute units in use", value=slowest.compute_pct, unit="%")
    if max(memory_pct, slowest.compute_pct) < _BUSY_PCT:
        waits = Figure(
            what=f"cycles of waiting an instruction ({slowest.stall})", value=slowest.stall_cycles, unit=""
        )
        busiest = dram if slowest.dram_pct >= slowest.compute_pct else compute
        warps = Figure(what="warps resident", value=slowest.occupancy_pct, unit="%")
        return Bottleneck(
            bound="latency",
            figures=(busiest, warps, waits),
            suggestion=_hide(slowest, kernels),
            by="counters",
        )
    if slowest.compute_pct >= memory_pct:
        return Bottleneck(
            bound="compute", figures=(compute, dram, l2), suggestion=_compute_less(kernels), by="counters"
        )
    times = moved / limits.size_bytes if limits.size_bytes else 0.0
    figures = (dram, l2, Figure(what="bytes moved over those of the task", value=times, unit="x"))
    return Bottleneck(
        bound="memory",
        figures=figures,
        suggestion=_move_less(times, is_l2=slowest.l2_pct > slowest.dram_pct, kernels=kernels),
        by="counters",
    )


def _by_trace(
    limits: Limits, trace: Trace, kernels: Sequence[KernelCode], *, on_cuda: bool
) -> Bottleneck | None:
    memory = 1000 * limits.floor_ms / trace.busy_us
    compute = 1000 * limits.operations_ms / trace.busy_us
    bytes_share = Figure(what="of the call that its bytes need", value=100 * memory, unit="%")
    work_share = Figure(
        what="of the call that the reference's operations need", value=100 * compute, unit="%"
    )
    bound: Bound
    if compute > 1 and memory < _NEAR:
        return None  # Nobody knows how many operations it does in place of the reference's.
    if max(memory, compute) < _NEAR:
        bound, suggestion = "latency", _hide(None, kernels) if on_cuda else _widen(kernels)
    elif memory >= compute or compute > 1:
        bound, suggestion = "memory", _ASK_LESS
    else:
        bound, suggestion = "compute", _compute_less(kernels) if on_cuda else _widen(kernels)
    rate = Figure(what="achieved", value=trace.tflops, unit="TFLOP/s")
    if bound == "memory" or not limits.operations:
        rate = Figure(what="achieved", value=trace.gbps, unit="GB/s")
    return Bottleneck(bound=bound, figures=(bytes_share, work_share, rate), suggestion=suggestion, by="trace")


def _hide(slowest: Counted | None, kernels: Sequence[KernelCode]) -> str:
    if spilling := _spilling(kernels):
        return spilling
    if slowest is not None and slowest.occupancy_pct < 100 * _FEW_WARPS:
        return "Have more warps resident: fewer registers or less shared memory a block, or more blocks."
    if slowest is not None and slowest.stall == "barrier":
        return "Warps wait for each other: use smaller blocks, or shuffles in place of barriers."
    if narrow := _narrow_loads(kernels):
        return narrow
    return (
        "Neither memory nor arithmetic is near its peak: have each thread start several independent loads "
        "before it uses the first, or load the next tile while this one is computed."
    )


def _move_less(times: float, *, is_l2: bool, kernels: Sequence[KernelCode]) -> str:
    if spilling := _spilling(kernels):
        return spilling
    if is_l2:
        return "L2 is the limit: keep more in registers and shared memory, with larger tiles for each block."
    if times > _RELOADS:
        return (
            f"It moves {times:.2g} times the task's bytes: keep what is read again in shared memory or "
            "registers."
        )
    return _ASK_LESS


def _compute_less(kernels: Sequence[KernelCode]) -> str:
    if spilling := _spilling(kernels):
        return spilling
    if kernels and not any(_share(kernel, "tensor") for kernel in kernels):
        return (
            "Arithmetic is the limit: for products use tensor cores (in fp32 by a split such as 3xTF32), "
            "else do fewer operations, or cheaper ones, for each element."
        )
    return "Arithmetic is the limit: do fewer operations for each element, and use the largest tiles."


def _widen(kernels: Sequence[KernelCode]) -> str:
    widest = max((kernel.vector_bits for kernel in kernels), default=0)
    if kernels and widest <= _WIDE_BITS:
        return (
            f"The arithmetic is {widest} bits wide: have the compiler use wider vectors (-O3 -march=native, "
            "loops without branches, #pragma omp simd)."
        )
    return (
        "Neither memory nor arithmetic is near its peak: keep several independent sums in flight, block for "
        "the cache, and call no library function inside the loop."
    )


def _spilling(kernels: Sequence[KernelCode]) -> str:
    worst = max(kernels, key=lambda kernel: kernel.local_bytes or 0, default=None)
    if worst is None or not worst.local_bytes:
        return ""
    return (
        f"{worst.name} keeps {worst.local_bytes} bytes a thread in local memory: have it use fewer registers."
    )


def _narrow_loads(kernels: Sequence[KernelCode]) -> str:
    narrow = [kernel for kernel in kernels if 0 < kernel.vector_bits < _WIDE_BITS]
    if not kernels or len(narrow) < len(kernels):
        return ""
    return f"The widest load has {max(k.vector_bits for k in narrow)} bits: load 128 bits at once (float4)."


def _share(kernel: KernelCode, kind: str) -> float:
    return sum(part.share for part in kernel.mix if part.kind == kind)
