"""Runs, sweeps, benchmarks and audits side by side: figures, what differs in the settings, and verdicts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kbopt.core.scoring import geometric_mean, mean_interval
from kbopt.reporting.comparison import WARNINGS
from kbopt.reporting.scoreboard import Board, Estimate, Row, board, shown
from kbopt.reporting.text import plural, speedup_text

Kind = Literal["run", "sweep", "benchmark", "audit"]

UNKNOWN = "?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of those that are compared. `setup` says by what its figures were made."""

    name: str
    kind: Kind
    setup: Mapping[str, str]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A task or kernel of which two sides say something else."""

    task: str
    first: str
    second: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """`second` against `first`, over the tasks or kernels that both have.

    `ratio` is the geometric mean of how many times as fast the second's kernels are as the first's, over
    those that both have correct and measured over eager, with the 95 % interval over these; None where there
    is none. `faster` and `slower` count those whose 95 % intervals lie apart. `agreeing` counts those with
    the same verdict.
    """

    first: str
    second: str
    common: int
    both_correct: int
    ratio: Estimate | None
    faster: int
    slower: int
    agreeing: int
    differing: tuple[Difference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A setting that is not known to be the same for all; `values` are in the order of the sides, `?` where a
    side does not record it, empty where it was left at its default.
    """

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What one side says of a task: the speedup over eager, the geometric mean over the seeds that solved it,
    with the lowest and the highest end of their 95 % intervals; None where none did.
    """

    speedup: float | None
    interval: tuple[float, float] | None
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLine:
    """One task or kernel; `cells` are in the order of the sides, None where a side has it not."""

    task: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A side in figures."""

    name: str
    kind: Kind
    board: Board


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """The comparison: all sides in figures, each later one against the first, and what differs."""

    sides: tuple[Figures, ...]
    tasks: tuple[TaskLine, ...]
    against: tuple[Against, ...]
    settings: tuple[Setting, ...]
    warnings: tuple[str, ...]


def side_by_side(sides: Sequence[Side]) -> Sides:
    """Compare at least one side."""
    names = dict.fromkeys(name for side in sides for name in side.setup)
    values = {name: tuple(side.setup.get(name, UNKNOWN) for side in sides) for name in names}
    settings = tuple(
        Setting(name=name, values=found)
        for name, found in values.items()
        if len(set(found)) > 1 and set(found) - {UNKNOWN, ""}
    )
    return Sides(
        sides=tuple(
            Figures(name=side.name, kind=side.kind, board=board(side.name, side.rows)) for side in sides
        ),
        tasks=tuple(_task_lines(sides)),
        against=tuple(against(sides[0], side) for side in sides[1:]),
        settings=settings,
        warnings=tuple(_warnings(settings)),
    )


def against(first: Side, second: Side) -> Against:
    """`second` against `first`."""
    ours, theirs = _by_task(first.rows), _by_task(second.rows)
    common = [task for task in ours if task in theirs]
    verdicts = [
        Difference(task=task, first=_verdict(ours[task]), second=_verdict(theirs[task])) for task in common
    ]
    logs, apart = [], [0, 0]
    for task in common:
        left, right = _speedup(ours[task]), _speedup(theirs[task])
        if left is None or right is None:
            continue
        logs.append(math.log(right / left))
        low, high = _ends(ours[task]), _ends(theirs[task])
        if low and high:
            apart[0] += high[0] > low[1]
            apart[1] += high[1] < low[0]
    differing = tuple(one for one in verdicts if one.first != one.second)
    return Against(
        first=first.name,
        second=second.name,
        common=len(common),
        both_correct=len(logs),
        ratio=_ratio(logs),
        faster=apart[0],
        slower=apart[1],
        agreeing=len(common) - len(differing),
        differing=differing,
    )


def told(found: Against) -> tuple[str, ...]:
    """What a comparison of two says, in lines of text."""
    if not found.common:
        return (f"{found.second} and {found.first} share no task: there is nothing to put side by side.",)
    share = f"{found.agreeing / found.common:.0%}" if found.differing else "all"
    lines = [
        f"{found.second} against {found.first}: {plural(found.common, 'task')} in common, the same verdict "
        f"for {found.agreeing} ({share})"
    ]
    if found.ratio:
        ends = (found.ratio.low, found.ratio.high) if found.both_correct > 1 else None
        lines.append(
            f"{speedup_text(found.ratio.mean, ends)} as fast, the geometric mean over the "
            f"{found.both_correct} that both have correct; faster with confidence on {found.faster}, slower "
            f"on {found.slower}"
        )
    return tuple(lines)


def table(found: Sides) -> list[list[str]]:
    """A line for each side as cells, the names of the columns first."""
    head = [
        "",
        "kind",
        "tasks",
        "seeds",
        "correct",
        "fast_1",
        "geomean over eager",
        "compile",
        "max-autotune",
    ]
    rows = [head]
    for one in found.sides:
        lines = {line.over: line for line in one.board.lines}
        means = [shown(lines[name].geomean, suffix="x") for name in ("eager", "compile", "max-autotune")]
        eager = lines["eager"]
        shares = [shown(eager.solved, ".0%"), shown(eager.fast["1"], ".0%")]
        counts = [str(one.board.num_tasks), str(one.board.num_seeds)]
        rows.append([one.name, one.kind, *counts, *shares, *means])
    return rows


def tasks(found: Sides) -> list[list[str]]:
    """Each task's speedup over eager, or its verdict, side by side, the names of the columns first."""
    cells = [[line.task, *(_told(cell) for cell in line.cells)] for line in found.tasks]
    return [["task", *(side.name for side in found.sides)], *cells]


def _told(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    return speedup_text(cell.speedup, cell.interval) if cell.speedup is not None else cell.verdict


def _task_lines(sides: Sequence[Side]) -> Iterator[TaskLine]:
    by_side = [_by_task(side.rows) for side in sides]
    for task in dict.fromkeys(task for found in by_side for task in found):
        yield TaskLine(
            task=task, cells=tuple(_cell(found[task]) if task in found else None for found in by_side)
        )


def _cell(rows: Sequence[Row]) -> Cell:
    return Cell(speedup=_speedup(rows), interval=_ends(rows), verdict=_verdict(rows))


def _by_task(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.task].append(row)
    return dict(found)


def _verdict(rows: Sequence[Row]) -> str:
    """The verdicts of all seeds, each told once."""
    return ", ".join(sorted({row.verdict or row.fate for row in rows}))


def _speedup(rows: Sequence[Row]) -> float | None:
    """The geometric mean over the seeds that solved it; None where none did."""
    speedups = [row.over["eager"] for row in rows if row.over.get("eager", 0.0) > 0]
    return geometric_mean(speedups) if speedups else None


def _ends(rows: Sequence[Row]) -> tuple[float, float] | None:
    """From the lowest to the highest end of the seeds' 95 % intervals."""
    found = [row.interval for row in rows if row.interval]
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None


def _ratio(logs: Sequence[float]) -> Estimate | None:
    if not logs:
        return None
    mean = math.fsum(logs) / len(logs)
    low, high = mean_interval(logs) if len(logs) > 1 else (mean, mean)
    return Estimate(
        mean=math.exp(mean),
        low=math.exp(min(low, mean)),
        high=math.exp(max(high, mean)),
        num_seeds=len(logs),
    )


def _warnings(settings: Sequence[Setting]) -> list[str]:
    known = {one.name: [value for value in one.values if value not in ("", UNKNOWN)] for one in settings}
    return [
        text.format("; ".join(dict.fromkeys(known[name])))
        for name, text in WARNINGS.items()
        if len(set(known.get(name, ()))) > 1
    ]
