"""What does a task of eight workloads cost, as a multiple of the same task on one of them?

python3 -m benchmarks.workloads_cost [--device cuda:0] [--rounds 4] [--minutes 1.7]

Both sides are evaluated in turn by one service, in random order. The workloads are softmaxes over rows of
eight lengths, of the same number of elements, so that a call of each takes about as long: a mean of one
alone would say how large it is. Each round has tasks of its own, evaluated twice, with another kernel the
second time: `first` includes the judge's start and admission, and `next` is what every further kernel of a
search costs. Prints the medians of seconds, by stage, by the clock of who waits, and of processors, which
other work on the machine lengthens less; and their ratios. Wanted: at most 3. Needs torch and numpy, and on a
GPU Triton.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from kbopt.core.evaluations import EvalRequest, Result
from kbopt.core.outcomes import Measured
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.core.workloads import Workload, written
from kbopt.evaluation.client import ServiceClient

ELEMENTS = {"cpu": 2**18, "cuda": 2**24}
COLUMNS = (1024, 128, 256, 512, 2048, 4096, 8192, 16384)
"""The first is the one workload's. All are powers of two, so that each is a kernel of its own in Triton."""
SIDES = {"one": 1, "eight": 8}
WANTED = 3.0
TASK = """
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1)


def get_inputs(rows, columns):
    return [torch.randn(rows, columns)]


def get_init_inputs():
    return []
"""
ON_CPU = """
import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        exponentials = torch.exp(x - x.amax(dim=-1, keepdim=True))
        return exponentials.div_(exponentials.sum(dim=-1, keepdim=True))
"""
ON_CUDA = """
import torch
import triton
import triton.language as tl


@triton.jit
def softmax_rows(x_ptr, out_ptr, COLUMNS: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    x = tl.load(x_ptr + offsets)
    exponentials = tl.exp(x - tl.max(x, axis=0))
    tl.store(out_ptr + offsets, exponentials / tl.sum(exponentials, axis=0))


class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = torch.empty_like(x)
        softmax_rows[(x.shape[0],)](x, out, COLUMNS=x.shape[1], num_warps=8)
        return out
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Seconds of one evaluation: of its stages, `wait` from the question to the answer, and of `processor`
    time, of all processes of the service.
    """

    build: float
    check: float
    time: float
    wait: float
    processor: float


STAGES = ("build", "check", "time", "wait", "processor")


def task_of(num_workloads: int, elements: int, number: int) -> Task:
    """The task on the first workloads. Its `number` makes it one that no judge knows."""
    workloads = [
        Workload(name=f"c{columns}", arguments={"rows": elements // columns, "columns": columns})
        for columns in COLUMNS[:num_workloads]
    ]
    return Task(name="softmax", source=f"# task {number}\n{TASK}\n\n{written(workloads)}\n")


async def spent_on(client: ServiceClient, task: Task, kernel: str, protocol: EvalProtocol) -> Spent:
    used_s, started = processor_s(os.getpid()), time.monotonic()
    result = await client.evaluate(EvalRequest(task=task, source=kernel, protocol=protocol))
    wait = time.monotonic() - started
    _require_measured(result)
    stages = result.seconds
    return Spent(
        build=stages.compile,
        check=stages.check,
        time=stages.time,
        wait=wait,
        processor=processor_s(os.getpid()) - used_s,
    )


def processor_s(pid: int) -> float:
    """Seconds of processor time that the descendants of the process have used, those that ended included."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # It ended; its parent counts it.
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
        ticks[int(path.parent.name)] = sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    left, used = list(children.get(pid, [])), 0
    while left:
        one = left.pop()
        used += ticks[one]
        left += children.get(one, [])
    return used / os.sysconf("SC_CLK_TCK")


def _require_measured(result: Result) -> None:
    if not isinstance(result.outcome, Measured):
        raise SystemExit(f"{type(result.outcome).__name__}: {result.outcome.reason}\n{result.log}")


async def measure(arguments: argparse.Namespace, state: Path) -> dict[tuple[str, str], list[Spent]]:
    """By side, and by `first` and `next`, what each round spent. Stops after a round that ends too late."""
    kind = arguments.device.partition(":")[0]
    kernel = ON_CPU if kind == "cpu" else ON_CUDA
    client = ServiceClient(device=arguments.device, state_dir=state)
    until = time.monotonic() + 60 * arguments.minutes
    rng = random.Random(0)
    found: dict[tuple[str, str], list[Spent]] = {}
    print(f"on {(await client.open()).device}", flush=True)
    try:
        for number in range(arguments.rounds):
            started = time.monotonic()
            for side in rng.sample(list(SIDES), len(SIDES)):
                task = task_of(SIDES[side], ELEMENTS[kind], number)
                for when in ("first", "next"):
                    own = f"{kernel}\n# {when}, {number}, {side}\n"
                    spent = await spent_on(client, task, own, EvalProtocol())
                    found.setdefault((side, when), []).append(spent)
                    print(f"round {number}, {side}, {when}: {_line(spent)}", flush=True)
            if time.monotonic() + (time.monotonic() - started) > until:
                break
    finally:
        await client.close()
    return found


def _line(spent: Spent) -> str:
    return ", ".join(f"{stage} {getattr(spent, stage):.2f} s" for stage in STAGES)


def table(found: dict[tuple[str, str], list[Spent]]) -> str:
    """Medians of seconds by stage, and how many times as much eight workloads take as one."""
    rows = ["| evaluation | stage | one, s | eight, s | ratio |", "| --- | --- | --- | --- | --- |"]
    for when in ("first", "next"):
        for stage in STAGES:
            one, eight = (median(getattr(spent, stage) for spent in found[side, when]) for side in SIDES)
            ratio = f"{eight / one:.2f}" if one >= 0.01 else ""  # Of hundredths a ratio says nothing.
            rows.append(f"| {when} | {stage} | {one:.2f} | {eight:.2f} | {ratio} |")
    pairs = list(zip(found["one", "next"], found["eight", "next"], strict=True))
    waits = sorted(eight.wait / one.wait for one, eight in pairs)
    used = sorted(eight.processor / one.processor for one, eight in pairs)
    rows.append(
        f"eight workloads cost {median(waits):.2f} times what one costs ({waits[0]:.2f} to {waits[-1]:.2f}), "
        f"and {median(used):.2f} times the processor time ({used[0]:.2f} to {used[-1]:.2f}), in {len(pairs)} "
        f"rounds; wanted: at most {WANTED:g}"
    )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=1.7, help="start no round that would end later")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as state:
        print(table(asyncio.run(measure(arguments, Path(state)))))


if __name__ == "__main__":
    main()
