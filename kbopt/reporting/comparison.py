"""Several runs side by side: fast_p curves and tables by algorithm and task, with the spread over runs.

Runs are one group where nothing but the task and the seed tells them apart: what else does, such as the
model or the budget, is part of the group's name.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from kbopt.core.scoring import fast_p, geometric_mean
from kbopt.reporting.summary import RunSummary

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(51))
"""The p of the fast_p curves: 0.5 to 3.0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A figure over seeds, or repetitions of one: `low` and `high` are the lowest and the highest one's."""

    mean: float
    low: float
    high: float
    num_seeds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FastPCurve:
    """fast_p of one group at each of `THRESHOLDS`, over the tasks that every seed has run."""

    algorithm: str
    num_tasks: int
    points: tuple[Spread, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One group on one task. `speedup` counts a run that found nothing correct as 0.

    `faster` counts the runs whose best kernel is faster with confidence, and a kernel of its own.
    """

    algorithm: str
    task: str
    speedup: Spread
    solved: int
    faster: int
    evaluations: float
    usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmRow:
    """One group over all of its tasks. `geomean` leaves unsolved tasks out; None where all are.

    `num_tasks` are those that every seed has run: `geomean` and fast_p are over them alone.
    """

    algorithm: str
    num_runs: int
    num_tasks: int
    solved: int
    faster: int
    geomean: Spread | None
    fast_05: Spread
    fast_1: Spread
    fast_105: Spread
    evaluations: int
    usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a report of several runs says before it shows each of them.

    `groups` has the name of each run's group, in the order of the runs: the algorithm, and whatever else
    tells the groups apart. `warnings` say why figures of different groups may not be compared as they are.
    """

    thresholds: tuple[float, ...]
    algorithms: tuple[AlgorithmRow, ...]
    curves: tuple[FastPCurve, ...]
    cells: tuple[Cell, ...]
    groups: tuple[str, ...]
    warnings: tuple[str, ...]


def compare(summaries: Sequence[RunSummary]) -> Comparison:
    """Compares at least one run; runs of the same group, task and seed count as repetitions."""
    groups = _groups(summaries)
    by_group: dict[str, list[RunSummary]] = defaultdict(list)
    by_cell: dict[tuple[str, str], list[RunSummary]] = defaultdict(list)
    for group, summary in zip(groups, summaries, strict=True):
        by_group[group].append(summary)
        by_cell[group, summary.task].append(summary)
    return Comparison(
        thresholds=THRESHOLDS,
        algorithms=tuple(_algorithm_row(name, runs) for name, runs in by_group.items()),
        curves=tuple(_curve(name, runs) for name, runs in by_group.items()),
        cells=tuple(_cell(group, task, runs) for (group, task), runs in by_cell.items()),
        groups=groups,
        warnings=_warnings(summaries),
    )


def _groups(summaries: Sequence[RunSummary]) -> tuple[str, ...]:
    """The name of each run's group."""
    telling = [trait for trait in _traits(summaries) if trait != "algorithm" and _differs(summaries, trait)]
    return tuple(
        " · ".join([summary.setup["algorithm"], *filter(None, (summary.setup.get(name) for name in telling))])
        for summary in summaries
    )


def _traits(summaries: Sequence[RunSummary]) -> list[str]:
    """All names in the runs' setups, in their order there."""
    places: dict[str, int] = {}
    for summary in summaries:
        for place, trait in enumerate(summary.setup):
            places[trait] = max(place, places.get(trait, 0))
    return sorted(places, key=lambda trait: places[trait])


def _values(summaries: Sequence[RunSummary], trait: str) -> list[str]:
    """The different values that runs have, without those of which nothing is known yet."""
    return list(dict.fromkeys(value for summary in summaries if (value := summary.setup.get(trait, ""))))


def _differs(summaries: Sequence[RunSummary], trait: str) -> bool:
    return len(_values(summaries, trait)) > 1


WARNINGS = {
    "device": "Measured on different devices ({}): their times and speedups do not compare.",
    "protocol": "Judged by different protocols ({}): their speedups are not of the same calls.",
    "budget": "The budgets differ ({}): compare at equal evaluations, in the charts, and not at the ends.",
}
"""Settings by which figures do not compare, and what to say where they differ."""


def _warnings(summaries: Sequence[RunSummary]) -> tuple[str, ...]:
    return tuple(
        text.format("; ".join(_values(summaries, trait)))
        for trait, text in WARNINGS.items()
        if _differs(summaries, trait)
    )


def best_speedup(summary: RunSummary) -> float:
    """The speedup of the run's best kernel, 0.0 where none was correct."""
    return summary.best.speedup if summary.best else 0.0


def markdown(comparison: Comparison) -> str:
    """A table of the speedups, tasks by algorithms: `mean (lowest-highest seed)`."""
    names = [row.algorithm for row in comparison.algorithms]
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    for cell in comparison.cells:
        cells[cell.task][cell.algorithm] = shown(cell.speedup)
    rows = [["task", *names], ["---"] * (len(names) + 1)]
    rows += [[task, *(found.get(name, "-") for name in names)] for task, found in cells.items()]
    rows.append(["geometric mean", *(shown(row.geomean) for row in comparison.algorithms)])
    rows.append(["fast_1.0", *(shown(row.fast_1, ".0%") for row in comparison.algorithms)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def shown(figure: Spread | None, form: str = ".2f") -> str:
    """`mean (lowest-highest)`, or the mean alone where they are equal."""
    if figure is None:
        return "-"
    mean, low, high = (format(value, form) for value in (figure.mean, figure.low, figure.high))
    return mean if low == high else f"{mean} ({low}-{high})"


def _per_seed(runs: Sequence[RunSummary]) -> list[list[float]]:
    """The best speedups of each seed's tasks; a seed that ran a task again is one more seed.

    Only tasks that every seed has, so that seeds compare.
    """
    by_seed: dict[tuple[int, int], dict[str, float]] = defaultdict(dict)
    seen: Counter[tuple[int, str]] = Counter()
    for run in runs:
        by_seed[run.seed, seen[run.seed, run.task]][run.task] = best_speedup(run)
        seen[run.seed, run.task] += 1
    shared = set.intersection(*(set(tasks) for tasks in by_seed.values()))
    if not shared:  # seeds that share no task are one sample of all their tasks
        return [[speedup for tasks in by_seed.values() for speedup in tasks.values()]]
    return [[tasks[name] for name in sorted(shared)] for tasks in by_seed.values()]


def _num_faster(runs: Sequence[RunSummary]) -> int:
    return sum(run.best is not None and run.best.state == "faster" for run in runs)


def _spread(values: Sequence[float]) -> Spread:
    return Spread(mean=statistics.fmean(values), low=min(values), high=max(values), num_seeds=len(values))


def _fast_p_spread(runs: Sequence[RunSummary], p: float) -> Spread:
    return _spread([fast_p(speedups, p) for speedups in _per_seed(runs)])


def _curve(algorithm: str, runs: Sequence[RunSummary]) -> FastPCurve:
    return FastPCurve(
        algorithm=algorithm,
        num_tasks=len(_per_seed(runs)[0]),
        points=tuple(_fast_p_spread(runs, p) for p in THRESHOLDS),
    )


def _cell(algorithm: str, task: str, runs: Sequence[RunSummary]) -> Cell:
    return Cell(
        algorithm=algorithm,
        task=task,
        speedup=_spread([best_speedup(run) for run in runs]),
        solved=sum(run.best is not None for run in runs),
        faster=_num_faster(runs),
        evaluations=statistics.fmean(run.evaluations for run in runs),
        usd=statistics.fmean(run.usd for run in runs),
    )


def _algorithm_row(algorithm: str, runs: Sequence[RunSummary]) -> AlgorithmRow:
    solved = [[speedup for speedup in seed if speedup > 0.0] for seed in _per_seed(runs)]
    means = [geometric_mean(speedups) for speedups in solved if speedups]
    return AlgorithmRow(
        algorithm=algorithm,
        num_runs=len(runs),
        num_tasks=len(_per_seed(runs)[0]),
        solved=sum(run.best is not None for run in runs),
        faster=_num_faster(runs),
        geomean=_spread(means) if means else None,
        fast_05=_fast_p_spread(runs, 0.5),
        fast_1=_fast_p_spread(runs, 1.0),
        fast_105=_fast_p_spread(runs, 1.05),
        evaluations=sum(run.evaluations for run in runs),
        usd=sum(run.usd for run in runs),
    )
