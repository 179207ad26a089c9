"""A benchmark: one optimizer over many tasks and seeds, and the table of what it found.

Its folder holds `bench.json` (what is run), a run's folder for each search, and what is made of them:
`results.jsonl` (a row for each search), `results.json` (the tables), `table.md`, `scoreboard.html` (the same
as one page), and `tasks/` with a page for each task. kbopt's own searches are a sweep in the same folder.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kbopt.cluster.messages import Failure
from kbopt.config import RunConfig, device_kind
from kbopt.core import codec
from kbopt.core.events import has_ended as has_ended_by
from kbopt.core.task import Task
from kbopt.finish import finish, open_run, write_atomically
from kbopt.proposers.seeds import seeds_for
from kbopt.reporting.report import write_report
from kbopt.reporting.scoreboard import Board, Fate, Row, boards, markdown, row_of
from kbopt.reporting.scoreboard_page import Header, Kernel, kernel_of, write_scoreboard
from kbopt.reporting.summary import RunSummary, summarize
from kbopt.store.journal import JournalReader
from kbopt.sweep import SweepConfig, describe, described

DESCRIPTION, ROWS, TABLES, MARKDOWN, SCOREBOARD, PAGES = (
    *("bench.json", "results.jsonl", "results.json", "table.md", "scoreboard.html", "tasks"),
)

Optimizer = Literal["kbopt", "best_of_n", "gepa", "openevolve"]
"""Who searches. All get the same judge, budgets and verdict; the last two are other projects' optimizers."""

EXTERNAL: tuple[Optimizer, ...] = ("gepa", "openevolve")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig:
    """What a benchmark runs: `optimizer` on every task of `searches` with every seed.

    `unseeded` are tasks that nobody is asked about, since kbopt has no seed kernel for them and no model is
    named: they count as unsolved. `usd` is the budget of all searches together, of which each has an equal
    part. `versions` are those of what decides a figure on this machine.
    """

    optimizer: Optimizer
    subset: str
    levels: tuple[int, ...]
    searches: SweepConfig
    unseeded: tuple[Task, ...] = ()
    usd: float | None = None
    versions: Mapping[str, str]

    @property
    def stored(self) -> BenchConfig:
        """As it is on disk: without secrets."""
        searches = self.searches
        return replace(self, searches=replace(searches, proposer=searches.proposer.without_secrets))

    @property
    def has_model(self) -> bool:
        return self.searches.proposer.name not in ("tunables", "simulated")

    @property
    def num_searches(self) -> int:
        return sum(1 for _ in self.searches.runs())


def versions() -> Mapping[str, str]:
    """Of kbopt, Python, and torch as it is here."""
    return {
        "kbopt": importlib.metadata.version("kbopt"),
        "torch": importlib.metadata.version("torch"),
        "python": platform.python_version(),
    }


def divided(usd: float | None, num_searches: int) -> float | None:
    """What each search may spend: equal parts, so that no task's figure depends on which came first."""
    return None if usd is None or not num_searches else usd / num_searches


def unseeded(tasks: Sequence[Task], searches: SweepConfig) -> tuple[Task, ...]:
    """The tasks for which kbopt has no seed kernel, where nobody but seed kernels could solve them."""
    if searches.proposer.name != "tunables" or searches.proposer.starts:
        return ()
    kind = device_kind(searches.backend)
    return tuple(task for task in tasks if not seeds_for(task.family, kind))


def prepare(config: BenchConfig, folder: Path) -> None:
    """Make the folder, or check that it holds this very benchmark. Raises `UserError` for another one."""
    describe(folder / DESCRIPTION, config.stored, "benchmark")


def load(folder: Path) -> BenchConfig:
    """The benchmark in `folder`. Raises `UserError` where there is none."""
    return described(folder / DESCRIPTION, BenchConfig, "benchmark")


def rows_of(folder: Path) -> tuple[Row, ...]:
    """The rows that were written last, none where there is no table yet."""
    lines = folder / ROWS
    found = lines.read_bytes().split(b"\n") if lines.is_file() else []
    return tuple(codec.loads(Row, line, f"{lines}:{n}") for n, line in enumerate(found, 1) if line)


def has_ended(folder: Path) -> bool:
    """Whether the search in `folder` came to its end."""
    if not (folder / "journal.sqlite").is_file():
        return False
    with JournalReader(folder / "journal.sqlite") as journal:
        return has_ended_by(entry.event for entry in journal.entries())


def refused(config: BenchConfig, folder: Path) -> Mapping[str, Failure]:
    """The searches whose tasks cannot be scored here, by the lines that were written before."""
    reasons = {(row.task, row.seed): row.reason for row in rows_of(folder) if row.fate == "refused"}
    places = {run.name: (run.task.name, run.settings.seed) for run in config.searches.runs()}
    return {
        name: Failure(kind="user", message=reasons[place])
        for name, place in places.items()
        if place in reasons
    }


def collect(config: BenchConfig, folder: Path, failures: Mapping[str, Failure]) -> tuple[Row, ...]:
    """The row of every search, by task and seed, from its journal. `failures` are by the search's name.

    Makes each search's files, and a page for each task.
    """
    rows = [
        Row(task=task.name, seed=seed, fate="no seed", over={})
        for task in config.unseeded
        for seed in dict.fromkeys(config.searches.seeds)
    ]
    by_task: dict[Task, list[RunConfig]] = {}
    for run in config.searches.runs():
        by_task.setdefault(run.task, []).append(run)
    for runs in by_task.values():
        there = [run for run in runs if (folder / run.name / "journal.sqlite").exists()]
        page = _page(folder, there)
        for run in there:
            summary = finish(folder / run.name).summary
            fate, reason = _fate(summary, failures.get(run.name))
            rows.append(row_of(summary, run.task.name, fate=fate, reason=reason, page=page))
    places = {task.name: place for place, task in enumerate((*by_task, *config.unseeded))}
    return tuple(sorted(rows, key=lambda row: (row.level, places[row.task], row.seed)))


def write(config: BenchConfig, folder: Path, rows: Sequence[Row]) -> tuple[Path, ...]:
    """The files of the table. Raises `InfraError` or `UserError` where the disk is full."""
    lines, tables, text = folder / ROWS, folder / TABLES, folder / MARKDOWN
    title = f"{config.searches.name}: {config.optimizer}"
    write_atomically(lines, "".join(f"{json.dumps(codec.fields_of(row))}\n" for row in rows))
    write_atomically(tables, json.dumps(document(config, boards(rows)), indent=1))
    about = {"device": ", ".join(devices(config, folder)), **setup(config)}
    notes = () if config.has_model else (without_model(config),)
    settings = [f"{name}: {value}" for name, value in about.items() if value]
    write_atomically(text, markdown(rows, title, (*settings, *notes)))
    header = Header(title=title, about=about, notes=notes)
    page = write_scoreboard(header, _kernels(config, folder, rows), folder / SCOREBOARD)
    return page, text, lines, tables


def _kernels(config: BenchConfig, folder: Path, rows: Sequence[Row]) -> list[tuple[Row, Kernel]]:
    """Each row with its kernel, from the search's journal."""
    places = {(run.task.name, run.settings.seed): folder / run.name for run in config.searches.runs()}
    found = []
    for row in rows:
        kernel, place = Kernel(), places.get((row.task, row.seed))
        if place is not None and (place / "journal.sqlite").exists():
            with open_run(place) as run:
                kernel = kernel_of(run)
        found.append((row, kernel))
    return found


def document(config: BenchConfig, tables: Sequence[Board]) -> Mapping[str, object]:
    """The JSON of a benchmark."""
    return {
        "bench": config.searches.name,
        "optimizer": config.optimizer,
        "subset": config.subset,
        "levels": list(config.levels),
        "setup": dict(setup(config)),
        "boards": [codec.fields_of(one) for one in tables],
    }


def setup(config: BenchConfig) -> Mapping[str, str]:
    """By what the figures were made: what tells two benchmarks apart besides their tasks."""
    searches, budget = config.searches, config.searches.settings.budget
    limits = {
        "evaluations a search": budget.evaluations,
        "dollars in all": config.usd,
        "tokens a search": budget.tokens,
        "minutes a search": budget.minutes,
    }
    return {
        "optimizer": config.optimizer,
        "algorithm": "" if config.optimizer in EXTERNAL else ", ".join(searches.algorithms),
        "proposer": "" if config.optimizer in EXTERNAL else searches.proposer.name,
        "models": searches.proposer.models,
        "language": searches.proposer.language or "",
        "protocol": searches.protocol.id,
        "backend": searches.backend.name,
        "gpu": searches.backend.gpu if searches.backend.name == "modal" else "",
        "subset": config.subset,
        "seeds": ", ".join(map(str, searches.seeds)),
        "budget": ", ".join(f"{value:g} {name}" for name, value in limits.items() if value is not None),
        **config.versions,
    }


def devices(config: BenchConfig, folder: Path) -> tuple[str, ...]:
    """Those that judged, by the searches' journals."""
    found: dict[str, None] = {}
    for run in config.searches.runs():
        if (folder / run.name / "journal.sqlite").exists():
            with open_run(folder / run.name) as opened:
                found |= dict.fromkeys(summarize(opened).devices)
    return tuple(found)


def without_model(config: BenchConfig) -> str:
    """What a benchmark without a model is one of."""
    without = len(config.unseeded)
    num_tasks = without + len(dict.fromkeys(config.searches.tasks))
    return (
        f"no --model: kbopt's own seed kernels, their settings varied; {without} of {num_tasks} tasks have "
        "none and count as unsolved"
    )


def _fate(summary: RunSummary, failure: Failure | None) -> tuple[Fate | None, str]:
    """None for a search that ended by itself. A task is refused when the judge is first asked about it."""
    if summary.ended is not None:
        return None, ""
    if failure is None:
        return "unfinished", "It was stopped; the same command goes on."
    is_refused = failure.kind == "user" and summary.candidates > 0 and not summary.evaluations
    return ("refused" if is_refused else "unfinished"), failure.message


def _page(folder: Path, runs: Sequence[RunConfig]) -> str:
    """The page of a task, as a path in `folder`: the search's own, or one of its seeds side by side."""
    if len(runs) < 2:
        return f"{runs[0].name}/report.html" if runs else ""
    name = runs[0].name.rpartition("-s")[0]
    with ExitStack() as stack:
        opened = [stack.enter_context(open_run(folder / run.name)) for run in runs]
        write_report(opened, folder / PAGES / f"{name}.html")
    return f"{PAGES}/{name}.html"
