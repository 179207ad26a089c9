"""For each task of KernelBench's levels 1 to 3 the reference's own code as candidate: what is it said to be
worth?

python3 -m benchmarks.kernelbench_identity --kernelbench DIR --device cuda --out results.jsonl --minutes 9

An honest judge says 1. Prints and appends one JSON line a task as it is ready: the strict interval,
KernelBench's own verdict, seconds, or the reason for which the task is refused.
Evaluations that `--out` holds are left out, so that a run goes on where the last one was stopped; their
order is that of a hash, so that a run which was stopped has a sample of all levels. Ends with a summary, and
the most host memory that was in use meanwhile, on the machine and by the evaluator's processes (PSS, which
leaves out what CUDA pins); `--table` prints what is there as rows in Markdown instead. Needs torch and
nothing else of the project's requirements.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.memory_budget import Watch
from kbopt.backends.local import LocalBackend
from kbopt.backends.pool import DevicePool, local_pool
from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest, Result, TaskReport
from kbopt.core.outcomes import Measured, outcome_name
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task

IN_FLIGHT = 32
_SAMPLE_S = 0.25
_WITHIN = 0.1
"""By how much KernelBench's speedup of identical code may differ from 1."""


def tasks(checkout: Path, levels: str) -> list[Task]:
    """The tasks of the levels, mixed."""
    found = [
        Task(name=f"level{level}/{file.name.partition('_')[0]}", source=file.read_text())
        for level in levels.split(",")
        for file in (checkout / "KernelBench" / f"level{level}").glob("*.py")
    ]
    return sorted(found, key=lambda task: task.key)


def row(task: Task, answer: Result | Exception, report: TaskReport | None, seconds: float) -> dict[str, Any]:
    """What one evaluation came to. Milliseconds and seconds."""
    line: dict[str, Any] = {"task": task.name, "seconds": round(seconds, 2)}
    if report is not None:
        line["admission"] = codec.encode(report)
    if isinstance(answer, Exception):
        return {**line, "outcome": type(answer).__name__, "reason": str(answer)[:600]}
    outcome, verdict = answer.outcome, answer.kernelbench
    line |= {"outcome": outcome_name(outcome), "device_s": round(answer.device_s, 3)}
    line |= {name: round(getattr(answer.seconds, name), 2) for name in ("queue", "compile", "check", "time")}
    first = min((span.start for span in answer.spans), default=0.0)
    line["spans"] = [
        (span.stage, round(span.start - first, 2), round(span.seconds, 2)) for span in answer.spans
    ]
    if isinstance(outcome, Measured):
        line |= {
            "reference_ms": median(outcome.reference_ms),
            "kernel_ms": median(outcome.kernel_ms),
            "speedup": outcome.speedup,
            "interval": outcome.speedup_ci,
            "latency": [(s.speedup, *s.interval) for s in outcome.speedups if s.clock == "latency"],
            "floor_ms": outcome.roofline.floor_ms if outcome.roofline else None,
            "notes": outcome.audit.notes,
        }
    else:
        line["reason"] = outcome.reason[:600]
    if verdict is not None:
        line["kernelbench"] = [verdict.correctness, verdict.ref_runtime, verdict.runtime]
        line["kernelbench_error"] = str(verdict.metadata.get("runtime_error", ""))[:200]
    return line


def used_bytes() -> int:
    """Of the machine's memory, what is not available any more."""
    values = dict(re.findall(r"(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text()))
    return 1024 * (int(values["MemTotal"]) - int(values["MemAvailable"]))


async def run(arguments: argparse.Namespace) -> str:
    """Judge what is to do; say how much host memory was in use at most, beyond that at the start."""
    arguments.out.touch()
    lines = arguments.out.read_text().splitlines()
    known = {(row["task"], row.get("repeat", 0)) for row in map(json.loads, lines)}
    todo = [
        (task, repeat)
        for repeat in range(arguments.repeats)
        for task in tasks(arguments.kernelbench, arguments.levels)
        if (task.name, repeat) not in known and (not arguments.only or task.name in arguments.only.split(","))
    ]
    until, start_bytes, most_bytes = time.monotonic() + 60 * arguments.minutes, used_bytes(), 0
    backend: LocalBackend | DevicePool = LocalBackend(device=arguments.device, state_dir=arguments.state_dir)
    if arguments.gpus > 1:
        backend = local_pool(arguments.gpus, arguments.state_dir)
    started = time.monotonic()
    status = await backend.open()
    ready_s = time.monotonic() - started
    print(f"{len(todo)} evaluations to do; {status}; ready after {ready_s:.1f} s", flush=True)
    protocol = EvalProtocol(trials=arguments.trials, arithmetic=arguments.arithmetic)
    places = asyncio.Semaphore(IN_FLIGHT)

    async def evaluated(request: EvalRequest) -> Result | Exception:
        try:
            (result,) = await backend.evaluate([request])
        except (InfraError, UserError) as error:
            return error
        return result

    async def described(request: EvalRequest) -> TaskReport | None:
        with suppress(InfraError, UserError):  # The evaluation says why.
            return await backend.describe(request) if arguments.describe else None
        return None

    async def judge(task: Task, repeat: int) -> None:
        async with places:
            if time.monotonic() > until:
                return
            begun = time.monotonic()
            request = EvalRequest(
                task=task,
                source=task.equal_code,
                protocol=protocol,
                repeat=repeat,
                kernelbench=arguments.verdict == "both",
            )
            answer, report = await asyncio.gather(evaluated(request), described(request))
            line = json.dumps({**row(task, answer, report, time.monotonic() - begun), "repeat": repeat})
        with arguments.out.open("a") as sink:
            sink.write(f"{line}\n")
        print(f"{time.monotonic() - started:6.1f} {line[:260]}", flush=True)

    async def watch() -> None:
        nonlocal most_bytes
        while True:
            most_bytes = max(most_bytes, used_bytes() - start_bytes)
            await asyncio.sleep(_SAMPLE_S)

    watcher, held = asyncio.create_task(watch()), Watch(os.getpid(), every_s=2.0)
    deadline = asyncio.gather(*(judge(*one) for one in todo))
    try:
        await asyncio.wait_for(deadline, 60 * arguments.minutes + arguments.grace)
    except TimeoutError:
        print("stopped with work in flight", flush=True)
    watcher.cancel()
    await backend.close()
    return f"{most_bytes / 2**30:.1f} GiB, {held.peak_bytes / 2**30:.1f} GiB by the evaluator's processes"


def summary(rows: list[dict[str, Any]], memory: str) -> str:
    """The figures that the README and docs/kernelbench.md give."""
    by_outcome: dict[str, int] = {}
    for one in rows:
        by_outcome[one["outcome"]] = by_outcome.get(one["outcome"], 0) + 1
    measured = [one for one in rows if one["outcome"] == "measured"]
    holds = [one for one in measured if one["interval"][0] <= 1 <= one["interval"][1]]
    timed = [one for one in measured if one.get("kernelbench") and one["kernelbench"][2] > 0]
    near = [
        one
        for one in timed
        if abs(math.log(one["kernelbench"][1] / one["kernelbench"][2])) <= math.log(1 + _WITHIN)
    ]
    apart = [one["task"] for one in measured if one not in holds]
    far = [
        f"{one['task']} {one['kernelbench'][1] / one['kernelbench'][2]:.2f}x"
        for one in timed
        if one not in near
    ]
    return "\n".join(
        [
            f"{len(rows)} evaluations: {by_outcome}",
            f"the strict interval holds 1 for {len(holds)} of {len(measured)}; not for {apart}",
            f"KernelBench's speedup within 10 % of 1 for {len(near)} of {len(timed)}; not for {far}",
            f"most host memory in use: {memory}",
        ]
    )


def _number(line: dict[str, Any]) -> tuple[str, int]:
    level, _, number = line["task"].partition("/")
    return level, int(number)


def table_row(line: dict[str, Any]) -> str:
    """A task's row: outcome, milliseconds, GiB, the strict interval, KernelBench's speedup."""
    cells, report = [line["task"], line["outcome"]], line.get("admission", {})
    if line["outcome"] != "measured":
        test = re.search(r"admission test '([^']*)' failed", line["reason"])
        reason = test[1] if test else line["reason"][:80].replace("|", "/")
        return f"| {cells[0]} | {cells[1]}: {reason} | | | | | | |"
    low, high = line["interval"]
    cells += [f"{line['reference_ms']:.4g}", f"{line['floor_ms']:.3g}" if line["floor_ms"] else ""]
    cells += [f"{report.get(name, 0) / 2**30:.1f}" for name in ("device_bytes", "host_bytes")]
    cells.append(f"{low:.3f} to {high:.3f}")
    _, reference_ms, kernel_ms = line.get("kernelbench", (False, 0.0, 0.0))
    cells.append(f"{reference_ms / kernel_ms:.3f}" if kernel_ms > 0 else "")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernelbench", type=Path, required=True, help="a checkout of KernelBench")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--gpus", type=int, default=1, help="more than one: cuda:0 and those after it")
    parser.add_argument("--levels", default="1,2,3")
    parser.add_argument("--only", default="", help="names of tasks, comma-separated")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--state-dir", type=Path, default=Path("/tmp/kbopt-identity"))
    parser.add_argument("--minutes", type=float, default=60.0, help="start no task after that")
    parser.add_argument("--grace", type=float, default=60.0, help="seconds for what is in flight then")
    parser.add_argument("--repeats", type=int, default=1, help="how often each task is judged")
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--arithmetic", default="default")
    parser.add_argument("--verdict", choices=("strict", "both"), default="both")
    parser.add_argument("--describe", action="store_true", help="note what admission says of each task")
    parser.add_argument("--table", action="store_true", help="judge nothing, print what --out holds")
    arguments = parser.parse_args()
    if arguments.table:
        rows = [json.loads(line) for line in arguments.out.read_text().splitlines()]
        print("\n".join(map(table_row, sorted(rows, key=_number))))
        return
    memory = asyncio.run(run(arguments))
    print(summary([json.loads(line) for line in arguments.out.read_text().splitlines()], memory))


if __name__ == "__main__":
    main()
