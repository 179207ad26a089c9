"""One source judged against itself, in new processes each time: how far do medians and ratios scatter?

The reference's own expression on vectors of several lengths, `--repeats` times each. What the intervals
should hold is 1.

    python -m benchmarks.cpu_scatter
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path

from kbopt.core.types import EvalProtocol, EvalRequest, Measured, Task
from kbopt.evaluation.client import ServiceClient

TASK = """
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x) * 1.5 + torch.sin(x)


def get_inputs():
    return [torch.randn(ELEMENTS)]


def get_init_inputs():
    return []
"""
SOURCE = TASK[: TASK.index("def get_inputs")].replace("class Model(", "class ModelNew(")


async def compare(repeats: int, folder: Path) -> None:
    for elements in (2**15, 2**17, 2**18, 2**20):
        task = Task(name=f"elements-{elements}", source=TASK.replace("ELEMENTS", str(elements)))
        found: list[Measured] = []
        # A new service for each half: the process that plays the reference lives as long as it.
        for _ in range(2):
            client = ServiceClient(device="cpu", state_dir=folder)
            await client.open()
            for number in range(repeats // 2):
                request = EvalRequest(
                    task=task, source=SOURCE, protocol=EvalProtocol(trials=2, timed=24), repeat=number
                )
                outcome = (await client.evaluate(request)).outcome
                if isinstance(outcome, Measured):
                    found.append(outcome)
            await client.close()
        report(elements, found, repeats // 2 * 2)


def report(elements: int, found: list[Measured], asked: int) -> None:
    kernel = [statistics.median(one.kernel_ms) for one in found]
    speedups = sorted(one.speedup for one in found)
    holding = sum(one.speedup_ci[0] <= 1.0 <= one.speedup_ci[1] for one in found)
    faster = sum(one.speedup_ci[0] > 1.0 for one in found)
    print(
        f"{elements} elements: {len(found)} of {asked} measured, {statistics.median(kernel):.3f} ms a call, "
        f"standard deviation between processes {statistics.stdev(kernel):.3f} ms; speedup over itself "
        f"{speedups[0]:.2f} to {speedups[-1]:.2f}; {holding} intervals hold 1, {faster} say faster",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=40)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(compare(repeats, Path(folder)))


if __name__ == "__main__":
    main()
