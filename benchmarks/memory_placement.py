"""How far a call's time depends on where its memory lies in the device, in plain PyTorch.

python3 benchmarks/memory_placement.py --kernelbench DIR --tasks level2/77,level2/3 --places 12

For each task the reference is timed in one process with the same inputs and parameters, and nothing changes
but where its outputs and work areas lie: before each place PyTorch's allocator gives its memory back, so that
the device's driver chooses anew. A place's time is the median of five calls, each after a flush of the L2.
Prints for each task the times in order, and the slowest place over the fastest. If that ratio is far above
those of the calls in one place, two processes that run the same kernel differ by it too. Imports nothing of
kbopt. Needs torch and a GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path
from statistics import median
from types import ModuleType

import torch

NUM_CALLS = 5
HOLD_CYCLES = 800_000
"""0.4 ms of the device's clock, so that launching is not in the time."""
FLUSHED_BYTES = 2**28
"""More than five times the L2 cache of an H200, which has 50 MB."""


def loaded(checkout: Path, name: str) -> ModuleType:
    """The module of a task such as `level2/77`."""
    level, number = name.split("/")
    (file,) = (checkout / "KernelBench" / level).glob(f"{number}_*.py")
    spec = importlib.util.spec_from_file_location(f"{level}_{number}", file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{file} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def times_ms(module: ModuleType, places: int, seconds: float) -> tuple[list[float], float]:
    """The median time in each place, and the widest ratio of calls within one place."""
    torch.manual_seed(0)
    model = module.Model(*module.get_init_inputs()).cuda()
    with torch.device("cuda"):
        inputs = [one.cuda() if isinstance(one, torch.Tensor) else one for one in module.get_inputs()]
    flushed = torch.empty(FLUSHED_BYTES, dtype=torch.uint8, device="cuda")
    found, widest, until = [], 1.0, time.monotonic() + seconds
    while len(found) < places and (len(found) < 2 or time.monotonic() < until):
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        model(*inputs)
        calls = []
        for _ in range(NUM_CALLS):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flushed.zero_()
            torch.cuda._sleep(HOLD_CYCLES)
            start.record()
            model(*inputs)
            end.record()
            torch.cuda.synchronize()
            calls.append(start.elapsed_time(end))
        found.append(median(calls))
        widest = max(widest, max(calls) / min(calls))
    return found, widest


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernelbench", type=Path, required=True, help="a checkout of KernelBench")
    parser.add_argument("--tasks", required=True, help="names of tasks, comma-separated")
    parser.add_argument("--places", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each task, at most")
    arguments = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print("| task | slowest place over fastest | within one place | ms in each place |")
    print("| --- | --- | --- | --- |")
    for name in arguments.tasks.split(","):
        with torch.no_grad():
            try:
                found, widest = times_ms(
                    loaded(arguments.kernelbench, name), arguments.places, arguments.seconds
                )
            except torch.OutOfMemoryError as error:
                print(f"| {name} | {str(error)[:60]} | | |", flush=True)
                continue
        shown = " ".join(f"{one:.3f}" for one in found)
        print(f"| {name} | {max(found) / min(found):.3f} | {widest:.3f} | {shown} |", flush=True)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
