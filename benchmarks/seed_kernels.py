"""The seed kernels in C, as they ship, against eager PyTorch on the quick tasks: both sides in one run.

    python benchmarks/seed_kernels.py [--cpu-time] [--rounds 40] [--task quick/gelu ...]

Calls alternate between the two; the figures are medians of wall-clock milliseconds and their ratio. On a
machine that others use too, `--cpu-time` counts the CPU's milliseconds on one thread instead.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import types
from collections.abc import Callable

import torch

from kbopt.proposers.seeds import seeds_for
from kbopt.tasks import expand, load_task


def module(source: str) -> types.ModuleType:
    made = types.ModuleType("made")
    exec(compile(source, "made", "exec"), made.__dict__)
    return made


def median_ms(
    models: list[torch.nn.Module], inputs: list[torch.Tensor], rounds: int, clock: Callable[[], float]
) -> list[float]:
    """Each model's median; each sample is the second of two calls, when its data is where it works best."""
    samples: list[list[float]] = [[] for _ in models]
    for _ in range(rounds):
        for model, times in zip(models, samples, strict=True):
            model(*inputs)
            start = clock()
            model(*inputs)
            times.append((clock() - start) * 1e3)
    return [statistics.median(times) for times in samples]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--task", nargs="+", default=["quick"])
    parser.add_argument("--cpu-time", action="store_true")
    arguments = parser.parse_args()
    clock = time.thread_time if arguments.cpu_time else time.perf_counter
    if arguments.cpu_time:
        torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}\n")
    print("| task | seed | eager ms | seed ms | speedup |\n| --- | --- | --- | --- | --- |")
    for name in expand(arguments.task):
        task = load_task(name)
        reference = module(task.source)
        init = reference.get_init_inputs()
        seeds = seeds_for(task.family, "cpu")
        models = [reference.Model(*init), *(module(seed.source).ModelNew(*init) for seed in seeds)]
        with torch.no_grad():
            eager, *kernels = median_ms(models, reference.get_inputs(), arguments.rounds, clock)
        for seed, kernel in zip(seeds, kernels, strict=True):
            print(f"| {name} | {seed.name} | {eager:.2f} | {kernel:.2f} | {eager / kernel:.2f} |", flush=True)


if __name__ == "__main__":
    main()
