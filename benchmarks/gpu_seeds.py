"""The Triton seed kernels on a GPU, through the evaluation service as it is: stdlib, torch, numpy, Triton.

Both sides of each ratio are measured in one session by the evaluator: the seed and eager PyTorch.

    python3 -m benchmarks.gpu_seeds [--out FILE.md]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from kbopt.core.types import EvalProtocol, EvalRequest, Measured, Result, Task, outcome_name
from kbopt.evaluation.client import ServiceClient
from kbopt.proposers.seeds import seeds_for
from kbopt.tasks import load_task

TASKS = (
    "matmul/2",
    "matmul/4",
    "matmul/5",
    "matmul/9",
    "matmul/10",
    "matmul/11",
    "matmul/15",
    "quick/gelu",
    "quick/swish",
    "quick/mish",
    "quick/softmax",
    "quick/layernorm",
)


async def measure(protocol: EvalProtocol) -> tuple[str, list[tuple[Task, Result, float]]]:
    with tempfile.TemporaryDirectory() as state:
        client = ServiceClient(device="cuda", state_dir=Path(state))
        info = await client.open()

        async def one(name: str) -> tuple[Task, Result, float]:
            task = load_task(name)
            source = seeds_for(task.family, "cuda")[0].source
            started = time.perf_counter()
            result = await client.evaluate(EvalRequest(task=task, source=source, protocol=protocol))
            return task, result, time.perf_counter() - started

        try:
            return info.device, list(await asyncio.gather(*(one(name) for name in TASKS)))
        finally:
            await client.close()


def row(task: Task, result: Result) -> str:
    outcome, seconds = result.outcome, result.seconds
    spent = f"{seconds.compile:.1f} | {seconds.check:.1f} | {seconds.time:.1f}"
    if not isinstance(outcome, Measured):
        return f"| {task.name} | {outcome_name(outcome)}: {outcome.reason.splitlines()[0]} | | | | {spent} |"
    low, high = outcome.speedup_ci
    share = f"{outcome.roofline.share:.0%}" if outcome.roofline else ""
    return (
        f"| {task.name} | {sorted(outcome.kernel_ms)[len(outcome.kernel_ms) // 2]:.4g} "
        f"| {sorted(outcome.reference_ms)[len(outcome.reference_ms) // 2]:.4g} "
        f"| {outcome.speedup:.2f} [{low:.2f}, {high:.2f}] | {share} | {spent} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--timed", type=int, default=100)
    options = parser.parse_args()
    device, found = asyncio.run(measure(EvalProtocol(timed=options.timed)))
    heading = "| task | kernel ms | eager ms | speedup [95 % CI] | roofline | compile s | check s | time s |"
    lines = [f"Device: {device}", "", heading, "| --- " * 8 + "|", *(row(task, r) for task, r, _ in found)]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
