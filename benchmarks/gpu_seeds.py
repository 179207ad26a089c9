"""The seed kernels that fit tasks of KernelBench, on this machine's device: right, and how fast?

python3 benchmarks/gpu_seeds.py --kernelbench DIR --levels 1,2,3 --out seeds.jsonl --minutes 9

Judges through the local evaluation service, several at once: the first seed of each task, then the others,
as long as there is time. Each answer is a JSON line of `--out`; what that file holds is not asked again, so
that the same command goes on. Ends with a table of the best seed of each task and the numbers of tasks.
`--baselines` asks for the speedups over `torch.compile` too, which takes a minute a task. `--tasks` takes
kbopt's own tasks or files in place of a checkout. Needs torch, Triton and numpy, and nothing else of the
project's requirements.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from kbopt.backends.local import LocalBackend
from kbopt.backends.pool import DevicePool, local_pool
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest, Result
from kbopt.core.outcomes import Measured, outcome_name
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Seed, Task
from kbopt.proposers.seeds import DeviceKind, seeds_for
from kbopt.tasks import expand, load_task
from kbopt.tasks.kernelbench import Problem, problems

FIRST = {
    "matmul": "matmul/cuda_tensor_cores",
    "linear_tail": "linear_tail/cuda_tensor_cores",
    "level1/4": "matmul/cuda_split_k",
    "level1/6": "matmul/cuda_split_k",
}
"""By task or group of families: the seed that is judged first where another one comes first by name."""
ALTERNATIVES = {
    "3xTF32": ('PRECISION = "tf32" ', 'PRECISION = "tf32x3" '),
    "PyTorch's convolution": ("IN_TRITON = 3 ", "IN_TRITON = 4 "),
}
"""Other values of tunables, judged after the others: convolutions at fp32's precision, or not in Triton."""
AGAIN = ("InfraError", "out of memory")
"""Words in the reason of an answer that says nothing of the kernel, and is asked for again."""


def chosen_tasks(options: argparse.Namespace) -> list[Task]:
    if options.tasks:
        return [load_task(name, kernelbench=options.kernelbench) for name in expand(options.tasks)]
    levels = {int(level) for level in options.levels.split(",")}
    found: Iterable[Problem] = (p for p in problems(options.kernelbench) if p.level in levels)
    return [load_task(problem.name, kernelbench=options.kernelbench) for problem in found]


def ordered(task: Task, kind: DeviceKind) -> list[Seed]:
    """The seeds of the task, the most promising one first."""
    seeds = list(seeds_for(task.family, kind))
    first = FIRST.get(task.name) or FIRST.get(task.family.split("/")[0], "")
    seeds.sort(key=lambda seed: seed.name != first)
    # Seeds that have PyTorch compute convolutions of two dimensions use neither tunable there.
    others = [
        Seed(name=f"{seed.name}, {name}", source=seed.source.replace(old, new))
        for name, (old, new) in ALTERNATIVES.items()
        for seed in seeds
        if old in seed.source and ("IN_TRITON" not in seed.source or "3d(" in task.source)
    ]
    return [*seeds, *others]


def line_of(task: Task, seed: Seed, answer: Result | Exception, seconds: float) -> dict[str, Any]:
    """What one seed came to, in ms and s; `over` has a speedup with its interval for each baseline."""
    line: dict[str, Any] = {"task": task.name, "seed": seed.name, "key": key_of(task, seed)}
    line["seconds"] = round(seconds, 1)
    if isinstance(answer, Exception):
        outcome = "refused" if isinstance(answer, UserError) else "error"
        return {**line, "outcome": outcome, "reason": f"{type(answer).__name__}: {answer}"[:400]}
    outcome = answer.outcome
    line |= {"outcome": outcome_name(outcome), "device": answer.device, "device_s": round(answer.device_s, 2)}
    if not isinstance(outcome, Measured):
        family = getattr(outcome, "family", "")
        return {**line, "reason": f"{family}: {outcome.reason}"[:400] if family else outcome.reason[:400]}
    line |= {"kernel_ms": median(outcome.kernel_ms), "eager_ms": median(outcome.reference_ms)}
    line["over"] = {"eager": [outcome.speedup, *outcome.speedup_ci]} | {
        s.baseline: [s.speedup, *s.interval] for s in outcome.speedups if s.clock == "device" and not s.reason
    }
    line["share"] = outcome.roofline.share if outcome.roofline else None
    return line


def key_of(task: Task, seed: Seed) -> str:
    """What was judged: a line of another task's or seed's source does not count."""
    return f"{task.key}/{Task(name='', source=seed.source).key}"


def is_final(line: dict[str, Any], *, baselines: bool) -> bool:
    if line["outcome"] == "measured":
        return not baselines or "compile" in line["over"]
    return not any(word in line["reason"] for word in AGAIN)


def read_lines(path: Path | None) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path and path.exists() else []


async def judge_all(
    options: argparse.Namespace, tasks: Sequence[Task], lines: list[dict[str, Any]]
) -> DeviceKind:
    """Judges what `lines` do not hold yet, and appends to them and to `--out`. The kind of device it was."""
    protocol = EvalProtocol(
        trials=options.trials, timed=options.timed, timeout_s=options.task_s, compile_timeout_s=options.task_s
    )
    known = {line["key"] for line in lines if is_final(line, baselines=options.baselines)}
    refused = {line["task"] for line in lines if line["outcome"] == "refused"}
    until = time.monotonic() + 60 * options.minutes
    places = asyncio.Semaphore(options.in_flight)
    with tempfile.TemporaryDirectory() as state:
        backend: LocalBackend | DevicePool = LocalBackend(device=options.device, state_dir=Path(state))
        if options.gpus > 1:
            backend = local_pool(options.gpus, Path(state))
        status = await backend.open()
        kind: DeviceKind = "cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu"
        print(f"{len(tasks)} tasks on {options.gpus} x {status.device}", flush=True)

        async def judge(task: Task, seed: Seed) -> None:
            async with places:
                if time.monotonic() > until or task.name in refused:
                    return
                request = EvalRequest(
                    task=task, source=seed.source, protocol=protocol, baselines=options.baselines
                )
                begun = time.monotonic()
                answer: Result | Exception
                try:
                    (answer,) = await backend.evaluate([request])
                except (InfraError, UserError) as error:
                    answer = error
            line = line_of(task, seed, answer, time.monotonic() - begun)
            lines.append(line)
            if line["outcome"] == "refused":
                refused.add(task.name)
            if options.out:
                with options.out.open("a") as sink:
                    sink.write(f"{json.dumps(line)}\n")
            print(summary_of(line), flush=True)

        pairs = [
            (rank, task, seed)
            for task in tasks
            for rank, seed in enumerate(ordered(task, kind))
            if key_of(task, seed) not in known
        ]
        pairs.sort(key=lambda pair: pair[0])
        work = asyncio.gather(*(judge(task, seed) for _, task, seed in pairs))
        try:
            await asyncio.wait_for(work, 60 * options.minutes + options.task_s)
        except TimeoutError:
            print("stopped with work in flight; the same command goes on", flush=True)
        finally:
            await backend.close()
    return kind


def summary_of(line: dict[str, Any]) -> str:
    if line["outcome"] != "measured":
        return f"{line['task']} {line['seed']}: {line['outcome']}: {line['reason'].splitlines()[0][:160]}"
    ms = f"{line['kernel_ms']:.4g} ms"
    return f"{line['task']} {line['seed']}: {ms}, {interval(line, 'eager')} over eager"


def interval(line: dict[str, Any], baseline: str) -> str:
    found = line.get("over", {}).get(baseline)
    return f"{found[0]:.2f} [{found[1]:.2f}, {found[2]:.2f}]" if found else ""


def best_lines(lines: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each task the line with the greatest speedup, else one that says why there is none."""
    best: dict[str, dict[str, Any]] = {}
    for line in lines:
        old = best.get(line["task"])
        if old is None or worth(line) >= worth(old):
            best[line["task"]] = line
    return best


def worth(line: dict[str, Any]) -> tuple[float, bool]:
    return line["over"]["eager"][0] if line["outcome"] == "measured" else 0.0, "compile" in line.get(
        "over", ()
    )


def table(tasks: Sequence[Task], lines: Sequence[dict[str, Any]], kind: DeviceKind) -> str:
    best = best_lines(lines)
    rows = [
        "| task | seed | verdict | kernel ms | eager ms | over eager [95 %] | over compile [95 %] | share |"
    ]
    rows.append("| --- " * 8 + "|")
    for task in tasks:
        line = best.get(task.name)
        if line is None:
            why = "not judged yet" if seeds_for(task.family, kind) else "no seed"
            rows.append(f"| {task.name} | | {why} | | | | | |")
        elif line["outcome"] != "measured":
            reason = line["reason"].splitlines()[0][:100].replace("|", "/")
            rows.append(f"| {task.name} | {line['seed']} | {line['outcome']}: {reason} | | | | | |")
        else:
            share = f"{line['share']:.0%}" if line["share"] is not None else ""
            over = f"{interval(line, 'eager')} | {interval(line, 'compile')}"
            rows.append(
                f"| {task.name} | {line['seed']} | measured | {line['kernel_ms']:.4g} "
                f"| {line['eager_ms']:.4g} | {over} | {share} |"
            )
    here = [best[task.name] for task in tasks if task.name in best]
    measured = [line for line in here if line["outcome"] == "measured"]
    faster = [line for line in measured if line["over"]["eager"][1] > 1.0]
    compiled = [line for line in measured if "compile" in line["over"]]
    ahead = [line for line in compiled if line["over"]["compile"][1] > 1.0]
    fitting = sum(bool(seeds_for(task.family, kind)) for task in tasks)
    rows += [
        "",
        f"{len(tasks)} tasks: {fitting} have a seed, {len(measured)} a correct one, {len(faster)} one "
        "that is faster than eager with 95 % confidence.",
    ]
    if compiled:
        rows.append(f"Over `torch.compile`: {len(ahead)} of {len(compiled)} are faster with 95 % confidence.")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernelbench", type=Path, help="a checkout of KernelBench")
    parser.add_argument("--levels", default="1", help="comma-separated (default 1)")
    parser.add_argument("--tasks", nargs="+", default=[], help="these instead: level1/40, quick, mine.py")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="JSON lines, appended to")
    parser.add_argument("--minutes", type=float, default=9.0, help="ask for nothing after that (default 9)")
    parser.add_argument(
        "--task-s", type=float, default=40.0, help="seconds that a seed may take (default 40)"
    )
    parser.add_argument("--gpus", type=int, default=1, help="this machine's first so many (default 1)")
    parser.add_argument("--in-flight", type=int, default=6, help="seeds that are judged at once (default 6)")
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--timed", type=int, default=40)
    parser.add_argument("--baselines", action="store_true", help="also over torch.compile and max-autotune")
    parser.add_argument("--table", action="store_true", help="judge nothing, print what --out holds")
    options = parser.parse_args()
    if not options.tasks and not options.kernelbench:
        parser.error("nothing to judge: give --kernelbench DIR, or --tasks with names or files")
    tasks, lines = chosen_tasks(options), read_lines(options.out)
    kind: DeviceKind = "cpu" if options.device == "cpu" else "cuda"
    if not options.table:
        kind = asyncio.run(judge_all(options, tasks, lines))
    print(table(tasks, lines, kind))


if __name__ == "__main__":
    main()
