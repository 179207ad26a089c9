"""Public examples of the field's formats: does each load, is it admitted, and are its solutions right?

python3 benchmarks/formats_table.py --formats DIR --prepare
python3 benchmarks/formats_table.py --formats DIR --out results.jsonl --minutes 9 --device cuda

DIR has the folders sol-execbench, flashinfer-bench, kernelbench-hard and gpu-mode, each with examples as
their repositories have them. `--prepare` reads the examples and the kernels that were published for them, and
writes both as kbopt judges them to DIR/prepared.json; GPU MODE's task.yml needs PyYAML. `--workloads 2
--solutions 1` makes a table that takes minutes. The second command
reads that file alone, and needs torch, Triton and numpy. Each task that is admitted or refused and each
solution that is judged is a JSON line of `--out`; what that file holds is not asked again, so that the same
command goes on. Ends with a table; `--table` prints what `--out` holds and judges nothing.

A definition of SOL-ExecBench or FlashInfer-Bench has the solutions that name it and lie nearest to it, or
beside it. The other formats have submissions as files of the example's folder: see SUBMISSIONS.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from math import prod
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from kbopt.backends.local import LocalBackend
from kbopt.backends.pool import DevicePool, local_pool
from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import Admitted, EvalRequest, Refused, Result, TaskReport
from kbopt.core.outcomes import Measured, outcome_name
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.core.workloads import workloads_of
from kbopt.tasks import as_model, formats, precision_of
from kbopt.tasks.published import shipped
from kbopt.tasks.solutions import is_solution

EXAMPLES = {
    "sol-execbench": "**/definition.json",
    "flashinfer-bench": "**/definitions/**/*.json",
    "kernelbench-hard": "**/shapes.py",
    "gpu-mode": "**/task.y*ml",
}
"""By the name of the format's folder: the files that are one example each, or lie in its folder."""
PREPARED = "prepared.json"
ADMITTED = "admitted"
AGAIN = ("InfraError", "out of memory")
"""Words in the reason of a line that says nothing of the example, and is asked for again."""
MOST_CHARS = 400
"""Of a reason in a line; a compiler's output is longer."""
EVERY = 10**6
"""Workloads or solutions of an example where all that there are count: more than any example has."""
ROW_CHARS = 110
"""Of a reason in the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """A solution of an example as a source that defines `ModelNew`; else `refused` says why it is none."""

    name: str
    source: str
    refused: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An example with its task, which is absent where it does not load: then `refused` says why.

    `num_workloads` is how many the example has, `num_chosen` how many of them the task has. With `backward`
    gradients are judged, too.
    """

    format: str
    name: str
    task: Task | None
    refused: str
    num_workloads: int
    num_chosen: int
    solutions: tuple[Shipped, ...]
    backward: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one example's task (`solution` is "") or one solution came to. Times are medians in ms.

    `outcome` is `admitted` or `refused` for a task, the evaluator's for a solution, `not loaded` where kbopt
    does not read the example or the solution, and `error` where the machine failed.
    """

    format: str
    example: str
    solution: str
    key: str
    outcome: str
    reason: str
    device: str = ""
    seconds: float = 0.0
    kernel_ms: float | None = None
    reference_ms: float | None = None
    speedup: float | None = None
    interval: tuple[float, float] | None = None


def prepare(folder: Path, *, most_workloads: int = EVERY, most_solutions: int = EVERY) -> list[Example]:
    """The examples in the folders of the formats. Names are relative to these folders.

    A task is on the `most_workloads` smallest of those that its path alone shows.
    """
    found: list[Example] = []
    for form, pattern in EXAMPLES.items():
        if not (folder / form).is_dir():
            raise UserError(f"{folder} has no folder {form}. Put the examples of the format there")
        with contextlib.chdir(folder / form):
            files = sorted(Path().glob(pattern))
            paths = files if form == "flashinfer-bench" else [file.parent for file in files]
            shipped = list(_solutions(form, files, paths))
            for path in paths:
                files = [file for file, of in shipped if of == path][:most_solutions]
                found.append(_example(form, path, files, most_workloads))
    return found


def _solutions(form: str, files: Sequence[Path], paths: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """The files of solutions, each with the path of its example."""
    if form in ("kernelbench-hard", "gpu-mode"):
        for path in paths:
            yield from ((file, path) for file in shipped.solutions(path))
        return
    named = [(_field(file, "name"), file, path) for file, path in zip(files, paths, strict=True)]
    for file in sorted(Path().glob("**/*.json")):
        if file in files or not is_solution(file.read_text()):
            continue
        found = [one for one in named if one[0] == _field(file, "definition")]
        found = found or [one for one in named if one[1].parent == file.parent]
        if found:
            yield file, max(found, key=lambda one: len(os.path.commonpath([one[1].parent, file])))[2]


def _field(file: Path, name: str) -> str:
    raw = json.loads(file.read_text())
    return str(raw.get(name, "")) if isinstance(raw, dict) else ""


def _example(form: str, path: Path, files: Sequence[Path], most_workloads: int) -> Example:
    num_workloads, task, refused = 0, None, ""
    try:
        problem = formats.read(str(path))[0]
        num_workloads = len(problem.workloads)
        task = formats.load(str(path))
        if most_workloads < num_workloads:
            task = formats.load(f"{path}#{','.join(_smallest(problem, task, most_workloads))}")
    except UserError as error:
        refused = str(error)
    return Example(
        format=form,
        name=str(path),
        task=task,
        refused=refused,
        num_workloads=num_workloads,
        num_chosen=len(workloads_of(task.source)) if task else 0,
        solutions=tuple(_shipped(file, path, task) for file in files) if task else (),
    )


def _smallest(problem: formats.FormatTask, task: Task, most: int) -> list[str]:
    """The names of the smallest workloads that the task shows, by the product of their sizes. A task of one
    has it because the example's workloads are no one model: then the smallest of all.
    """
    of_task = [one.name for one in workloads_of(task.source) if one.role == "shown"]
    found = [one for one in problem.workloads if one.name in of_task or of_task == [""]]
    found.sort(key=lambda one: prod(int(size) for size in re.findall(r"=(\d+)\b", one.text)))
    return [one.name for one in found[: most if of_task != [""] else 1]]


def _shipped(file: Path, path: Path, task: Task) -> Shipped:
    name = str(Path(os.path.relpath(file, path if path.is_dir() else path.parent))).replace("../", "")
    try:
        return Shipped(name=name, source=as_model(file.read_text(), str(file), task), refused="")
    except UserError as error:
        return Shipped(name=name, source="", refused=str(error))


def is_final(line: Line) -> bool:
    return not any(word in line.reason for word in AGAIN)


def read_lines(path: Path) -> list[Line]:
    if not path.exists():
        return []
    return [codec.decode(Line, json.loads(line)) for line in path.read_text().splitlines()]


def line_of(asked: Line, answer: Result | TaskReport | Exception) -> Line:
    """The line that was asked for, with what the service answered."""
    if isinstance(answer, Exception):
        kind = "refused" if isinstance(answer, UserError) else "error"
        return replace(asked, outcome=kind, reason=f"{type(answer).__name__}: {answer}"[:MOST_CHARS])
    line = replace(asked, device=answer.device)
    if isinstance(answer, Refused):
        return replace(line, outcome="refused", reason=answer.reason[:MOST_CHARS])
    if isinstance(answer, Admitted):
        return replace(line, outcome=ADMITTED, reference_ms=answer.reference_ms)
    outcome = answer.outcome
    line = replace(line, outcome=outcome_name(outcome))
    if not isinstance(outcome, Measured):
        family = getattr(outcome, "family", "")
        return replace(line, reason=(f"{family}: " * bool(family) + outcome.reason)[:MOST_CHARS])
    return replace(
        line,
        kernel_ms=median(outcome.kernel_ms),
        reference_ms=median(outcome.reference_ms),
        speedup=outcome.speedup,
        interval=outcome.speedup_ci,
    )


class Judging:
    """Asks the service about examples, and appends what it says to `lines` and to the file of `options`."""

    def __init__(
        self, backend: LocalBackend | DevicePool, options: argparse.Namespace, lines: list[Line]
    ) -> None:
        self._backend, self._options, self._lines = backend, options, lines
        self._known = {(line.example, line.solution, line.key): line for line in lines if is_final(line)}
        self._until = time.monotonic() + 60 * options.minutes
        self._places = asyncio.Semaphore(options.in_flight)

    async def example(self, example: Example) -> None:
        """The task, and its solutions if it is admitted."""
        async with self._places:
            task, protocol = example.task, protocol_of(example, self._options)
            if task is None:
                self._not_loaded(example, "", example.refused, protocol)
                return
            request = EvalRequest(task=task, source=task.equal_code, protocol=protocol)
            report = await self._asked(example, "", request)
            if report is None or report.outcome != ADMITTED:
                return
            for shipped in example.solutions:
                if shipped.refused:
                    self._not_loaded(example, shipped.name, shipped.refused, protocol)
                    continue
                request = EvalRequest(task=task, source=shipped.source, protocol=protocol)
                await self._asked(example, shipped.name, request)

    async def _asked(self, example: Example, solution: str, request: EvalRequest) -> Line | None:
        """The line of the request, asked now or before; None where there is no time left for it."""
        line = asked_line(example, solution, request.source if solution else "", request.protocol)
        known = self._known.get((line.example, line.solution, line.key))
        if known is not None or time.monotonic() > self._until:
            return known
        begun = time.monotonic()
        answer: Result | TaskReport | Exception
        try:
            if solution:
                (answer,) = await self._backend.evaluate([request])
            else:
                answer = await self._backend.describe(request)
        except (InfraError, UserError) as error:
            answer = error
        line = replace(line_of(line, answer), seconds=round(time.monotonic() - begun, 1))
        self._add(line)
        return line

    def _not_loaded(self, example: Example, solution: str, why: str, protocol: EvalProtocol) -> None:
        line = asked_line(example, solution, "", protocol)
        if (line.example, line.solution, line.key) not in self._known:
            self._add(replace(line, outcome="not loaded", reason=why[:MOST_CHARS]))

    def _add(self, line: Line) -> None:
        self._lines.append(line)
        with self._options.out.open("a") as sink:
            sink.write(f"{json.dumps(codec.encode(line))}\n")
        print(summary_of(line), flush=True)


def asked_line(example: Example, solution: str, source: str, protocol: EvalProtocol) -> Line:
    """The line of the example's task, or of a solution with this source, before its answer. Its key tells it
    from those of other sources, tasks and protocols.
    """
    task = example.task.key if example.task else ""
    key = f"{task}/{Task(name='', source=source).key if source else ''}/{protocol.rules}"
    return Line(
        format=example.format, example=example.name, solution=solution, key=key, outcome="", reason=""
    )


def protocol_of(example: Example, options: argparse.Namespace) -> EvalProtocol:
    precision = precision_of(example.task.source) if example.task else None
    return EvalProtocol(
        trials=options.trials,
        timed=options.timed,
        precision=precision or "fp32",
        timeout_s=options.task_s,
        compile_timeout_s=options.task_s,
        backward=example.backward,
    )


async def judge_all(options: argparse.Namespace, examples: Sequence[Example], lines: list[Line]) -> None:
    with tempfile.TemporaryDirectory() as state:
        backend: LocalBackend | DevicePool = LocalBackend(device=options.device, state_dir=Path(state))
        if options.gpus > 1:
            backend = local_pool(options.gpus, Path(state))
        status = await backend.open()
        print(f"{len(examples)} examples on {options.gpus} x {status.device}", flush=True)
        judging = Judging(backend, options, lines)
        work = asyncio.gather(*(judging.example(example) for example in mixed(examples)))
        try:
            await asyncio.wait_for(work, 60 * options.minutes + options.grace_s)
        except TimeoutError:
            print("stopped with work in flight; the same command goes on", flush=True)
        finally:
            await backend.close()


def mixed(examples: Sequence[Example]) -> list[Example]:
    """The formats in turn, so that a run which was stopped has some of each."""
    forms = dict.fromkeys(one.format for one in examples)
    groups = [[one for one in examples if one.format == form] for form in forms]
    return [one for row in zip_longest(*groups) for one in row if one is not None]


def summary_of(line: Line) -> str:
    what = f"{line.example} {line.solution}".strip()
    if line.speedup is not None and line.interval is not None:
        low, high = line.interval
        return f"{what}: {line.kernel_ms:.4g} ms, {line.speedup:.2f} [{low:.2f}, {high:.2f}] over eager"
    return f"{what}: {line.outcome} {_short(line.reason, 160)}"


def _short(reason: str, num_chars: int) -> str:
    text = " ".join(reason.split())
    return text if len(text) <= num_chars else f"{text[: num_chars - 3]}..."


def table(examples: Iterable[Example], lines: Iterable[Line]) -> str:
    """A row for each example and each of its solutions, and the numbers for each format."""
    known = {(line.format, line.example, line.solution): line for line in lines}
    rows = [
        "| format | example | workloads | solution | verdict | ms | reference ms | over eager [95 %] |",
        "| --- " * 8 + "|",
    ]
    totals: list[str] = []
    by_format: dict[str, list[Example]] = {}
    for example in examples:
        by_format.setdefault(example.format, []).append(example)
    for form, group in by_format.items():
        here: list[Line] = []
        for example in group:
            for solution in ("", *(one.name for one in example.solutions)):
                line = known.get((form, example.name, solution))
                here += [line] if line else []
                rows.append(_row(example, solution, line, known.get((form, example.name, ""))))
        totals.append(_total(form, len(group), here))
    return "\n".join([*rows, "", *totals])


def _row(example: Example, solution: str, line: Line | None, task: Line | None) -> str:
    chosen = f"{example.num_chosen} of {example.num_workloads}" if example.num_workloads else ""
    cells = [example.format, example.name, "" if solution else chosen, solution]
    if line is None:
        cells += ["not judged" if task and task.outcome != ADMITTED else "not judged yet", "", "", ""]
    else:
        reason = _short(re.sub(r"[|`]", "/", line.reason), ROW_CHARS)
        cells.append(f"{line.outcome}: {reason}" if reason else line.outcome)
        cells += [f"{ms:.4g}" if ms is not None else "" for ms in (line.kernel_ms, line.reference_ms)]
        over = f"{line.speedup:.2f}" if line.speedup is not None else ""
        cells.append(f"{over} [{line.interval[0]:.2f}, {line.interval[1]:.2f}]" if line.interval else over)
    return f"| {' | '.join(cells)} |"


def _total(form: str, num_examples: int, lines: Sequence[Line]) -> str:
    counts = {True: dict[str, int](), False: dict[str, int]()}
    for line in lines:
        of = counts[line.solution == ""]
        of[line.outcome] = of.get(line.outcome, 0) + 1
    tasks, solutions = (
        ", ".join(f"{num} {name}" for name, num in sorted(of.items())) or "none judged"
        for of in counts.values()
    )
    return f"- {form}: {num_examples} examples ({tasks}); solutions: {solutions}."


def add_options(parser: argparse.ArgumentParser) -> None:
    """Of `judge_all` and of what calls it."""
    parser.add_argument("--out", type=Path, help="JSON lines, appended to")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", default="", help="examples whose format or name holds this")
    parser.add_argument("--minutes", type=float, default=9.0, help="ask for nothing after that (default 9)")
    parser.add_argument("--grace-s", type=float, default=40.0, help="seconds for what is in flight then")
    parser.add_argument(
        "--task-s",
        type=float,
        default=120.0,
        help="seconds that a build or a judgement may take (default 120)",
    )
    parser.add_argument("--gpus", type=int, default=1, help="this machine's first so many (default 1)")
    parser.add_argument("--in-flight", type=int, default=64, help="examples at once (default 64)")
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--timed", type=int, default=40)
    parser.add_argument("--table", action="store_true", help="judge nothing, print what --out holds")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--formats", type=Path, required=True, metavar="DIR", help="a folder for each format")
    parser.add_argument("--prepare", action="store_true", help=f"write DIR/{PREPARED} and judge nothing")
    add_options(parser)
    parser.add_argument(
        "--workloads", type=int, default=EVERY, help="--prepare: only so many of an example, the smallest"
    )
    parser.add_argument(
        "--solutions", type=int, default=EVERY, help="--prepare: only so many of an example, the first"
    )
    options = parser.parse_args()
    prepared = options.formats / PREPARED
    if options.prepare:
        examples = prepare(
            options.formats, most_workloads=options.workloads, most_solutions=options.solutions
        )
        prepared.write_text(json.dumps(codec.encode(examples)))
        loaded = sum(example.task is not None for example in examples)
        solutions = sum(len(example.solutions) for example in examples)
        print(f"{prepared}: {loaded} of {len(examples)} examples load, with {solutions} solutions")
        return
    if options.out is None:
        parser.error("give --out FILE for the results, or --prepare")
    if not prepared.exists():
        parser.error(f"{prepared} is not there: run this with --prepare first, where PyYAML is installed")
    examples = list(codec.decode(tuple[Example, ...], json.loads(prepared.read_text())))
    examples = [one for one in examples if options.only in one.format or options.only in one.name]
    lines = read_lines(options.out)
    if not options.table:
        asyncio.run(judge_all(options, examples, lines))
    print(table(examples, lines))


if __name__ == "__main__":
    main()
