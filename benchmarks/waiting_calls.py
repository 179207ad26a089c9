"""What code reads that waits for the device as its reference does, honest or with its time hidden.

Both sources compute the same in the same way. `same code` is the reference's; `claims nothing` replaces
CUDA's events, so that its worker's clock stands still and only the judge's clocks say what a call takes.
Both should read 1. Needs a GPU and torch, about 3 s an evaluation.

    python3 benchmarks/waiting_calls.py [--repeats 4]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from kbopt.core.evaluations import EvalRequest
from kbopt.core.outcomes import Measured
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.evaluation.client import ServiceClient

REFERENCE = """
import torch

class Model(torch.nn.Module):
    def forward(self, x):
        factors = torch.tensor([1.5, 1.0], device=x.device)
        return torch.tanh(x) * factors[0] + torch.sin(x) * factors[1]

def get_inputs():
    return [torch.randn(2**20)]

def get_init_inputs():
    return []
"""
SAME = REFERENCE.replace("class Model(", "class ModelNew(")
NO_EVENTS = """
torch.cuda.Event.elapsed_time = lambda *args, **kwargs: 1e-3
torch.cuda.Event.record = lambda *args, **kwargs: None
"""
SOURCES = {"same code": SAME, "claims nothing": SAME.replace("import torch\n", f"import torch\n{NO_EVENTS}")}
PROTOCOL = EvalProtocol(trials=2, timed=24)


async def measure(repeats: int) -> None:
    task = Task(name="waiting", source=REFERENCE)
    print("| source | reference, ms | call, ms | speedup | 95 % |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        client = ServiceClient(device="cuda", state_dir=Path(folder), python=sys.executable)
        await client.open()
        try:
            for repeat in range(repeats):
                for name, source in SOURCES.items():
                    request = EvalRequest(task=task, source=source, protocol=PROTOCOL, repeat=repeat)
                    outcome = (await client.evaluate(request)).outcome
                    if not isinstance(outcome, Measured):
                        print(f"| {name} | | | {outcome.reason} | |", flush=True)
                        continue
                    kernel_ms, reference_ms = outcome.call_ms
                    low, high = outcome.speedup_ci
                    times = f"{reference_ms:.3f} | {kernel_ms:.3f} | {outcome.speedup:.2f}"
                    print(f"| {name} | {times} | [{low:.2f}, {high:.2f}] |", flush=True)
        finally:
            await client.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeats", type=int, default=4, help="evaluations of each source (default %(default)s)"
    )
    asyncio.run(measure(parser.parse_args().repeats))


if __name__ == "__main__":
    main()
