"""The roofline of a task: the time to move its bytes at the device's bandwidth.

The bytes are inputs, outputs and parameters, each moved once. A second figure is the time of the reference's
own operations at the peak of its arithmetic, with two operations per multiply-add and at least one per output
element. It is no bound: a better algorithm, structure in the data, or faster units may need less.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.flop_counter import flop_registry

from kbopt.core.profile import DeviceFacts, Limits
from kbopt.evaluation.judge.products import plain
from kbopt.evaluation.judge.reference import Draw, Reference
from kbopt.evaluation.numerics import DTYPES
from kbopt.evaluation.operations import EachOperation

_IMPOSSIBLE_SHARE = 0.2
"""Times below this share of the time to move inputs and outputs once are rejected as `implausible`. Caches
can save a factor of a few, and a triangular operand a factor of two."""

_COPIED_BYTES = {"cuda": 2**30, "cpu": 2**25}
"""Bytes of a copy that measures the bandwidth. On a GPU that is many times the L2. A copy of a quarter of it
was timed 10 % too long, so that a sum of 8.6 GB was said to be faster than an H200 allows."""
_NUM_CALLS = {"cuda": 5, "cpu": 20}
"""Calls of which the shortest counts: other work on the machine only adds to a time. Beside seven busy
processes on two cores the bandwidth was 5 to 21 GB/s by 5 calls, and 10 to 30 GB/s by 20, in 0.2 s."""
_MOST_MEASURED = {"cuda": 1, "cpu": 4}
"""Times that a judge measures the peaks, for as many judgements. The highest counts. A GPU is not shared."""
_HOLD_CYCLES = 400_000
"""Cycles of the device, 0.2 ms on an H200, which is longer than it takes to queue a call."""

Arithmetic = Literal["fp32", "tf32", "fp16", "bf16"]

_TFLOPS: dict[str, dict[Arithmetic, float]] = {
    "H200": {"fp32": 67.0, "tf32": 494.0, "fp16": 989.0, "bf16": 989.0},
    "H100": {"fp32": 67.0, "tf32": 494.0, "fp16": 989.0, "bf16": 989.0},
    "B200": {"fp32": 75.0, "tf32": 1125.0, "fp16": 2250.0, "bf16": 2250.0},
    "L40S": {"fp32": 91.6, "tf32": 183.0, "fp16": 362.0, "bf16": 362.0},
    "A100": {"fp32": 19.5, "tf32": 156.0, "fp16": 312.0, "bf16": 312.0},
    "A10G": {"fp32": 31.2, "tf32": 35.0, "fp16": 70.0, "bf16": 70.0},
    "L4": {"fp32": 30.3, "tf32": 60.0, "fp16": 121.0, "bf16": 121.0},
    "T4": {"fp32": 8.1, "tf32": 8.1, "fp16": 65.0, "bf16": 65.0},
}
"""Dense peaks from the vendor's data sheets. The T4 has no TF32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The work of one call. No kernel can be faster than `impossible_ms`, which is 0 on a CPU."""

    limits: Limits
    impossible_ms: float


class _Operations(EachOperation):
    """Adds up torch's own counts of operations. torch's FlopCounterMode would import all of torch._dynamo."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.operations += int(count(*args, **(kwargs or {}), out_val=result))
        return result


def work_of(reference: Reference, draw: Draw) -> Work:
    """Run the reference once on `draw` and count its work."""
    counter = _Operations()
    with counter:
        output = plain(reference, draw)
    moved_bytes = draw.size_bytes + output.size_bytes
    size_bytes = moved_bytes + sum(p.nbytes for p in reference.model.parameters())
    operations = max(counter.operations, sum(t.numel() for t in output.tensors))
    bandwidth, peak = device_peaks(str(reference.device), arithmetic_of(reference), again=True)
    on_cuda = reference.device.type == "cuda"
    return Work(
        limits=Limits(
            size_bytes=size_bytes,
            operations=operations,
            floor_ms=1000 * size_bytes / bandwidth,
            operations_ms=1000 * operations / peak,
        ),
        impossible_ms=_IMPOSSIBLE_SHARE * 1000 * moved_bytes / bandwidth if on_cuda else 0.0,
    )


def cached_ms(reference: Reference) -> float:
    """Return the milliseconds to write to memory what the L2 can keep of the reference's output on a GPU."""
    l2_bytes: int = torch.cuda.get_device_properties(reference.device).L2_cache_size
    bandwidth, _ = device_peaks(str(reference.device), arithmetic_of(reference))
    return 1000 * min(l2_bytes, reference.output_bytes) / bandwidth


def device_facts(reference: Reference) -> DeviceFacts:
    """Describe the reference's device. Peaks are from its data sheet, or else measured for one arithmetic."""
    arithmetic = arithmetic_of(reference)
    bandwidth, peak = device_peaks(str(reference.device), arithmetic)
    peaks: dict[str, float] = {arithmetic: peak / 1e12}
    versions = {"torch": torch.__version__}
    name, units = "cpu", torch.get_num_threads()
    cache_bytes, shared_bytes = _last_cache_bytes(), 0
    if reference.device.type == "cuda":
        device = torch.cuda.get_device_properties(reference.device)
        name, units = device.name, device.multi_processor_count
        cache_bytes, shared_bytes = device.L2_cache_size, device.shared_memory_per_block_optin
        for sheet in (_TFLOPS[part] for part in _TFLOPS if part in device.name):
            peaks |= {str(kind): tflops for kind, tflops in sheet.items()}
        versions |= {"CUDA": torch.version.cuda or "", "cuDNN": str(torch.backends.cudnn.version())}
        with suppress(importlib.metadata.PackageNotFoundError):
            versions["Triton"] = importlib.metadata.version("triton")
    return DeviceFacts(
        name=name,
        bandwidth_gbps=bandwidth / 1e9,
        peak_tflops=peaks,
        units=units,
        cache_bytes=cache_bytes,
        shared_bytes=shared_bytes,
        versions=versions,
    )


def _last_cache_bytes(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Return the bytes of the CPU's largest cache, or 0 if the kernel does not tell."""
    sizes = [path.read_text().strip() for path in folder.glob("index*/size")]
    return max((1024 * int(size.removesuffix("K")) for size in sizes if size.endswith("K")), default=0)


def arithmetic_of(reference: Reference) -> Arithmetic:
    """Return the arithmetic of the reference's products: TF32 only if the protocol allows it everywhere."""
    if reference.precision == "fp32" and reference.protocol.arithmetic == "tf32":
        return "tf32"
    return reference.precision


_measured = defaultdict[tuple[str, Arithmetic], list[tuple[float, float]]](list)


def device_peaks(device: str, arithmetic: Arithmetic, *, again: bool = False) -> tuple[float, float]:
    """Return a device's bytes and operations per second, the highest that this process measured.

    They are measured first if they were not yet, or `again` and not often. Other work on a CPU can have the
    first measurement find half of its bandwidth, and kernels then pass the floor.
    """
    found = _measured[device, arithmetic]
    if not found or (again and len(found) < _MOST_MEASURED[_kind(device)]):
        found.append(_peaks_now(device, arithmetic))
    bandwidths, peaks = zip(*found, strict=True)
    return max(bandwidths), max(peaks)


def _kind(device: str) -> str:
    return torch.device(device).type


def _peaks_now(device: str, arithmetic: Arithmetic) -> tuple[float, float]:
    """Measure a device's bytes and operations per second.

    The bandwidth is that of a copy. On a GPU it is the highest of a copy, a sum and a fill: the last two need
    not change between reading and writing. The peak is from the data sheet, or else that of a matrix product.
    """
    dtype = DTYPES["fp32" if arithmetic == "tf32" else arithmetic]
    is_cuda = device.startswith("cuda")
    size = _COPIED_BYTES[_kind(device)]
    if is_cuda:
        size = min(size, torch.cuda.mem_get_info(device)[0] // 8)
    source = torch.rand(size // 4, device=device)
    target = torch.empty_like(source)
    bandwidth = 2 * size / _seconds(lambda: target.copy_(source), device)
    if is_cuda:
        bandwidth = max(bandwidth, size / _seconds(source.sum, device))
        bandwidth = max(bandwidth, size / _seconds(lambda: target.fill_(1.0), device))
        name = torch.cuda.get_device_name(device)
        for part, peaks in _TFLOPS.items():
            if part in name:
                return bandwidth, peaks[arithmetic] * 1e12
    side = 4096 if is_cuda else 512
    square = torch.ones(side, side, dtype=dtype, device=device)
    return bandwidth, 2 * side**3 / _seconds(lambda: square @ square, device)


def _seconds(call: Callable[[], object], device: str) -> float:
    """Return the seconds of the shortest of some calls; on a GPU by its own clock, without the launch."""
    best = float("inf")
    for _ in range(_NUM_CALLS[_kind(device)]):
        if device.startswith("cuda"):
            begun, done = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda._sleep(_HOLD_CYCLES)  # The call is queued before the first event.
            begun.record()
            call()
            done.record()
            done.synchronize()
            best = min(best, begun.elapsed_time(done) / 1000)
        else:
            started = time.perf_counter()
            call()
            best = min(best, time.perf_counter() - started)
    return best
