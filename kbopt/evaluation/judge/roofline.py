"""What a call of a task costs at the least: its bytes over the bandwidth, per device.

Bytes are inputs, outputs and parameters, each moved once. The reference's own products and convolutions (two
operations per multiply-add, at least one per output element) over the peak of its arithmetic are a second
figure, and no bound: a better algorithm, structure in the data, or a split onto faster units needs less.
"""

from __future__ import annotations

import functools
import importlib.metadata
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from kbopt.core.profile import DeviceFacts, Limits
from kbopt.evaluation.judge.reference import Draw, Reference
from kbopt.evaluation.numerics import DTYPES

_IMPOSSIBLE_SHARE = 0.2
"""Times below this share of the time to move the bytes once are rejected: caches explain a factor of a
few, and a triangular operand one of two."""

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
    """What one call has to move, and what the reference computes. `impossible_ms` is a time that no kernel
    can reach.
    """

    size_bytes: int
    operations: int
    floor_ms: float
    operations_ms: float
    impossible_ms: float

    @property
    def limits(self) -> Limits:
        """As a profile has them."""
        return Limits(
            size_bytes=self.size_bytes,
            operations=self.operations,
            floor_ms=self.floor_ms,
            operations_ms=self.operations_ms,
        )


class _Operations(TorchDispatchMode):  # type: ignore[misc]
    """Adds up torch's own operation counts; FlopCounterMode itself would import all of torch._dynamo."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

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
    """Counts one call of the reference on `draw`."""
    counter = _Operations()
    with counter:
        output = reference.run(draw.arguments(tuple(t.clone() for t in draw.tensors)))
    parameters = sum(p.numel() * p.element_size() for p in reference.model.parameters())
    size_bytes = draw.size_bytes + output.size_bytes + parameters
    operations = max(counter.operations, sum(t.numel() for t in output.tensors))
    bandwidth, peak = device_peaks(str(reference.device), arithmetic_of(reference))
    memory_ms = 1000 * size_bytes / bandwidth
    return Work(
        size_bytes=size_bytes,
        operations=operations,
        floor_ms=memory_ms,
        operations_ms=1000 * operations / peak,
        impossible_ms=_IMPOSSIBLE_SHARE * 1000 * (draw.size_bytes + output.size_bytes) / bandwidth
        if reference.device.type == "cuda"
        else 0.0,
    )


def cached_ms(reference: Reference) -> float:
    """How long the way to memory takes for what the L2 can keep of an answer of the reference's on a GPU."""
    l2_bytes: int = torch.cuda.get_device_properties(reference.device).L2_cache_size
    bandwidth, _ = device_peaks(str(reference.device), arithmetic_of(reference))
    return 1000 * min(l2_bytes, reference.output_bytes) / bandwidth


def device_facts(reference: Reference) -> DeviceFacts:
    """What the device of `reference` is, with its peaks by data sheet, else that of the task's arithmetic."""
    arithmetic = arithmetic_of(reference)
    bandwidth, peak = device_peaks(str(reference.device), arithmetic)
    peaks: dict[str, float] = {arithmetic: peak / 1e12}
    versions = {"torch": torch.__version__}
    if reference.device.type == "cpu":
        return DeviceFacts(
            name="cpu",
            bandwidth_gbps=bandwidth / 1e9,
            peak_tflops=peaks,
            units=torch.get_num_threads(),
            cache_bytes=_last_cache_bytes(),
            shared_bytes=0,
            versions=versions,
        )
    device = torch.cuda.get_device_properties(reference.device)
    for sheet in (_TFLOPS[part] for part in _TFLOPS if part in device.name):
        peaks |= {str(kind): tflops for kind, tflops in sheet.items()}
    versions |= {"CUDA": torch.version.cuda or "", "cuDNN": str(torch.backends.cudnn.version())}
    with suppress(importlib.metadata.PackageNotFoundError):
        versions["Triton"] = importlib.metadata.version("triton")
    return DeviceFacts(
        name=device.name,
        bandwidth_gbps=bandwidth / 1e9,
        peak_tflops=peaks,
        units=device.multi_processor_count,
        cache_bytes=device.L2_cache_size,
        shared_bytes=device.shared_memory_per_block_optin,
        versions=versions,
    )


def _last_cache_bytes(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Of the CPU's largest cache, 0 where the kernel does not say."""
    sizes = [path.read_text().strip() for path in folder.glob("index*/size")]
    return max((1024 * int(size.removesuffix("K")) for size in sizes if size.endswith("K")), default=0)


def arithmetic_of(reference: Reference) -> Arithmetic:
    """That of the reference's products: in TF32 only where the protocol has all of them so."""
    if reference.precision == "fp32" and reference.protocol.arithmetic == "tf32":
        return "tf32"
    return reference.precision


@functools.cache
def device_peaks(device: str, arithmetic: Arithmetic) -> tuple[float, float]:
    """Bytes per second as measured by a copy; operations per second by data sheet, else by a product."""
    dtype = DTYPES["fp32" if arithmetic == "tf32" else arithmetic]
    size = 2**28 if device.startswith("cuda") else 2**25
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    bandwidth = 2 * size / _seconds(lambda: target.copy_(source), device)
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
        for part, peaks in _TFLOPS.items():
            if part in name:
                return bandwidth, peaks[arithmetic] * 1e12
    side = 4096 if device.startswith("cuda") else 512
    square = torch.ones(side, side, dtype=dtype, device=device)
    return bandwidth, 2 * side**3 / _seconds(lambda: square @ square, device)


def _seconds(call: Callable[[], object], device: str) -> float:
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        call()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return best
