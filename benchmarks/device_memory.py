"""What else moves a call's time on a GPU: memory that was given back, and memory of another process.

python3 benchmarks/device_memory.py

Two calls that users make, timed by event pairs after a flush of the L2: a sigmoid of 6.4 GB, which is bound
by bandwidth, and a product of 2048 x 8192 by 8192 x 4096. First alone, then from the moment on at which 60 GB
were freed, by this process and by another one that ended; then on inputs that lie in another process's
memory, opened by CUDA's IPC as a candidate's inputs are. Prints each series, and ratios to what the calls
take alone. Needs torch and a GPU with 80 GB.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import time
from collections.abc import Callable
from statistics import median

import torch

from kbopt.evaluation.transport import cuda_api

_NUM_ELEMENTS = 4096 * 393216
_FREED_BYTES = 60 * 10**9
_WATCHED_S = 0.5
_NUM_CALLS = 12
_HOLD_CYCLES = 800_000
"""0.4 ms of the device's clock, so that launching is not in the time."""

Call = Callable[[], object]


class Calls:
    """A sigmoid and a product of `values`, and what they take. Milliseconds."""

    def __init__(self, values: torch.Tensor) -> None:
        self._flush = torch.empty(2**28, dtype=torch.uint8, device="cuda")
        output = torch.empty_like(values)
        left, right = values[: 2048 * 8192].view(2048, 8192), values[2**25 : 2**25 + 4096 * 8192]
        right = right.view(4096, 8192).T
        self._sigmoid: Call = lambda: torch.sigmoid(values, out=output)
        self._product: Call = lambda: torch.matmul(left, right)
        for _ in range(3):
            self.both_ms()

    def both_ms(self) -> tuple[float, float]:
        return self._ms(self._sigmoid), self._ms(self._product)

    def alone_ms(self) -> tuple[float, float]:
        """The median of each."""
        sigmoids, products = zip(*(self.both_ms() for _ in range(_NUM_CALLS)), strict=True)
        return median(sigmoids), median(products)

    def watch(self, name: str, alone_ms: tuple[float, float]) -> None:
        """Print how the two take longer than alone, from now on."""
        started, parts = time.perf_counter(), []
        while (passed := time.perf_counter() - started) < _WATCHED_S:
            sigmoid, product = (ms / alone for ms, alone in zip(self.both_ms(), alone_ms, strict=True))
            parts.append(f"{passed:.2f} s {sigmoid:.2f} {product:.2f}")
            time.sleep(0.01)
        print(f"{name} (after, sigmoid, product): {'; '.join(parts)}", flush=True)

    def _ms(self, call: Call) -> float:
        torch.cuda.synchronize()
        self._flush.zero_()
        torch.cuda._sleep(_HOLD_CYCLES)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end))


def hold_and_end() -> None:
    """A process that has memory and ends."""
    torch.empty(_FREED_BYTES, dtype=torch.uint8, device="cuda").fill_(1)
    torch.cuda.synchronize()


def open_and_time(ticket: str, alone_ms: tuple[float, float]) -> None:
    """The calls on memory of the process that exported `ticket`, and on a copy of it."""
    library = cuda_api.runtime()
    torch.cuda.init()
    torch.empty(1, device="cuda")
    size_bytes = 4 * _NUM_ELEMENTS
    there = cuda_api.tensor_at(cuda_api.open_handle(library, ticket), size_bytes, torch.device("cuda"))
    values = there.view(torch.float32)
    for name, tensor in (("another process's memory", values), ("a copy of its own", values.clone())):
        ratios = [ms / alone for ms, alone in zip(Calls(tensor).alone_ms(), alone_ms, strict=True)]
        print(f"{name}: sigmoid {ratios[0]:.3f}, product {ratios[1]:.3f} of alone", flush=True)


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    library = cuda_api.runtime()
    torch.cuda.init()
    torch.empty(1, device="cuda")
    address = ctypes.c_void_p()
    size_bytes = 4 * _NUM_ELEMENTS
    cuda_api.check(library.cudaMalloc(ctypes.byref(address), size_bytes), "cudaMalloc")
    memory = cuda_api.tensor_at(int(address.value or 0), size_bytes, torch.device("cuda"))
    values = memory.view(torch.float32).uniform_()
    calls = Calls(values)
    alone_ms = calls.alone_ms()
    print(f"{torch.cuda.get_device_name()}: sigmoid {alone_ms[0]:.3f} ms, product {alone_ms[1]:.3f} ms")
    held = torch.empty(_FREED_BYTES, dtype=torch.uint8, device="cuda").fill_(1)
    torch.cuda.synchronize()
    calls.watch("60 GB are held", alone_ms)
    del held
    torch.cuda.empty_cache()
    calls.watch("60 GB were freed", alone_ms)
    other = spawn.Process(target=hold_and_end)
    other.start()
    other.join()
    calls.watch("a process with 60 GB has ended", alone_ms)
    ticket = cuda_api.export(library, int(address.value or 0))
    reader = spawn.Process(target=open_and_time, args=(ticket, alone_ms))
    reader.start()
    reader.join()


if __name__ == "__main__":
    main()
