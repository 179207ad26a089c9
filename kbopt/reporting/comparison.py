"""Several runs side by side: fast_p curves and tables by algorithm and task, with the spread over seeds."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from kbopt.core.scoring import fast_p, geometric_mean
from kbopt.reporting.summary import RunSummary

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(51))
"""The p of the fast_p curves: 0.5 to 3.0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A figure over the seeds: `low` and `high` are the lowest and the highest seed's."""

    mean: float
    low: float
    high: float
    num_seeds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FastPCurve:
    """fast_p of one algorithm at each of `THRESHOLDS`, over the tasks that every seed has run."""

    algorithm: str
    num_tasks: int
    points: tuple[Spread, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One algorithm on one task. `speedup` counts a seed that found nothing correct as 0."""

    algorithm: str
    task: str
    speedup: Spread
    solved: int
    evaluations: float
    usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmRow:
    """One algorithm over all of its tasks. `geomean` leaves unsolved tasks out; None where all are."""

    algorithm: str
    num_runs: int
    solved: int
    geomean: Spread | None
    fast_05: Spread
    fast_1: Spread
    fast_105: Spread
    evaluations: int
    usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a report of several runs says before it shows each of them."""

    thresholds: tuple[float, ...]
    algorithms: tuple[AlgorithmRow, ...]
    curves: tuple[FastPCurve, ...]
    cells: tuple[Cell, ...]


def compare(summaries: Sequence[RunSummary]) -> Comparison:
    """Compares at least one run; runs of the same algorithm, task and seed count as further seeds."""
    by_algorithm: dict[str, list[RunSummary]] = defaultdict(list)
    by_cell: dict[tuple[str, str], list[RunSummary]] = defaultdict(list)
    for summary in summaries:
        by_algorithm[summary.algorithm].append(summary)
        by_cell[summary.algorithm, summary.task].append(summary)
    return Comparison(
        thresholds=THRESHOLDS,
        algorithms=tuple(_algorithm_row(name, runs) for name, runs in by_algorithm.items()),
        curves=tuple(_curve(name, runs) for name, runs in by_algorithm.items()),
        cells=tuple(_cell(algorithm, task, runs) for (algorithm, task), runs in by_cell.items()),
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
    """The best speedups of each seed's tasks. Only tasks that every seed has, so that seeds compare."""
    by_seed: dict[int, dict[str, float]] = defaultdict(dict)
    for run in runs:
        by_seed[run.seed][run.task] = best_speedup(run)
    shared = set.intersection(*(set(tasks) for tasks in by_seed.values()))
    if not shared:  # seeds that share no task are one sample of all their tasks
        return [[speedup for tasks in by_seed.values() for speedup in tasks.values()]]
    return [[tasks[name] for name in sorted(shared)] for tasks in by_seed.values()]


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
        evaluations=statistics.fmean(run.evaluations for run in runs),
        usd=statistics.fmean(run.usd for run in runs),
    )


def _algorithm_row(algorithm: str, runs: Sequence[RunSummary]) -> AlgorithmRow:
    solved = [[speedup for speedup in seed if speedup > 0.0] for seed in _per_seed(runs)]
    means = [geometric_mean(speedups) for speedups in solved if speedups]
    return AlgorithmRow(
        algorithm=algorithm,
        num_runs=len(runs),
        solved=sum(run.best is not None for run in runs),
        geomean=_spread(means) if means else None,
        fast_05=_fast_p_spread(runs, 0.5),
        fast_1=_fast_p_spread(runs, 1.0),
        fast_105=_fast_p_spread(runs, 1.05),
        evaluations=sum(run.evaluations for run in runs),
        usd=sum(run.usd for run in runs),
    )
