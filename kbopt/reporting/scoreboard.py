"""A benchmark's table: how many tasks were solved, how much faster, over what, and for how much.

A row is one search, of one task with one seed. A figure is computed for each seed over all tasks, and then
told as its mean over the seeds, with the 95 % interval of that mean.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from kbopt.core.protocol import ranked_by
from kbopt.core.scoring import fast_p, geometric_mean, mean_interval
from kbopt.core.tally import amount
from kbopt.core.text import first_line
from kbopt.reporting.summary import RunSummary
from kbopt.reporting.text import figure, plural

FAST = (0.5, 1.0, 1.2, 2.0)
"""The p of the fast_p in the table; KernelBench's leaderboards give 1 and 2 at least."""

BASELINES = ("eager", "compile", "max-autotune")
KERNELBENCH = "eager (KernelBench)"

Fate = Literal["correct", "unsolved", "no seed", "refused", "unfinished"]
FATES: Mapping[Fate, str] = {
    "correct": "with a correct kernel",
    "unsolved": "without a correct kernel",
    "no seed": "without a seed kernel, which count as unsolved",
    "refused": "that cannot be scored on this device, which count in no figure",
    "unfinished": "not finished, which count in no figure",
}
"""What became of a search. Those that were refused or are not finished say nothing about the optimizer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One task with one seed. `over` has the strict speedups of a correct kernel by baseline, `interval` the
    95 % one of that over eager; a baseline that was not measured, or does not run, is not in it.

    `kernelbench` is KernelBench's own speedup of the same kernel, 0.0 where that calls it wrong, None where
    it was not asked. `roofline` is the share of the floor by bytes. `minutes` are the search's wall clock,
    `device_minutes` those in which the device ran a kernel or the reference. `page` is a path. `verdict` is
    what a kernel of an audit was called, empty for a search.
    """

    task: str
    seed: int
    fate: Fate
    reason: str = ""
    over: Mapping[str, float]
    interval: tuple[float, float] | None = None
    own_kernel: bool = False
    kernelbench: float | None = None
    roofline: float | None = None
    evaluations: int = 0
    usd: float = 0.0
    tokens: int = 0
    minutes: float = 0.0
    device_minutes: float = 0.0
    page: str = ""
    verdict: str = ""

    @property
    def counts(self) -> bool:
        """Whether it says something about the optimizer."""
        return self.fate not in ("refused", "unfinished")

    @property
    def surely_faster(self) -> bool:
        """Whether a kernel of its own is faster than eager PyTorch with the whole 95 % interval."""
        return self.own_kernel and self.interval is not None and self.interval[0] > 1

    @property
    def level(self) -> str:
        """`level 1` of `level1/23`; empty for a task that is none of KernelBench's."""
        found = re.match(r"level(\d+)/", self.task)
        return f"level {found[1]}" if found else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure's mean over seeds with the 95 % interval of that mean; of one seed the figure alone."""

    mean: float
    low: float
    high: float
    num_seeds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The figures over one baseline. A figure is None where no search has what it needs.

    `fast` has the share of tasks that are solved and more than p times as fast, keyed `"1.2"`. `geomean` is
    over the solved ones. `missing` counts the solved searches whose speedup over this baseline is not known:
    they are in no figure of this line.
    """

    over: str
    solved: Estimate | None
    fast: Mapping[str, Estimate | None]
    geomean: Estimate | None
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """The table of some tasks. `faster` is the share of tasks surely faster than eager PyTorch, where
    fast_1 asks for the measured speedup alone. The last figures are those of one search: means over tasks,
    then over seeds; `roofline` is the geometric mean of the shares that are known.
    """

    name: str
    num_tasks: int
    num_seeds: int
    fates: Mapping[str, int]
    lines: tuple[Line, ...]
    faster: Estimate | None
    roofline: Estimate | None
    usd: Estimate | None
    tokens: Estimate | None
    evaluations: Estimate | None
    minutes: Estimate | None
    device_minutes: Estimate | None


def row_of(summary: RunSummary, task: str, *, fate: Fate | None = None, reason: str = "", page: str) -> Row:
    """A search's row; without `fate` it is correct or unsolved by its best kernel.

    A kernel in which the evaluation at the end found a fault is not correct.
    """
    best = summary.best
    sound = best is not None and not best.final_fault
    if fate is None:
        fate = "correct" if sound else "unsolved"
    over: dict[str, float] = {}
    share = kernelbench = None
    if best is not None and fate == "correct":
        baseline, clock = ranked_by(best.protocol)
        over = {s.baseline: s.speedup for s in best.speedups if s.clock == clock and not s.reason}
        over = {name: value for name, value in over.items() if name in BASELINES and value > 0}
        if baseline == "eager":
            over["eager"] = best.speedup
        share = best.roofline.share if best.roofline else None
        if verdict := best.kernelbench:
            times = (verdict.ref_runtime, verdict.runtime)
            kernelbench = times[0] / times[1] if verdict.correctness and min(times) > 0 else None
            kernelbench = kernelbench if verdict.correctness else 0.0
    if best is not None and best.final_fault and not reason:
        reason = best.final_fault
    return Row(
        task=task,
        seed=summary.seed,
        fate=fate,
        reason=first_line(reason, 300),
        over=over,
        interval=best.speedup_ci if best is not None and fate == "correct" else None,
        own_kernel=best is not None and best.custom_kernel,
        kernelbench=kernelbench,
        roofline=share,
        evaluations=summary.evaluations,
        usd=summary.usd,
        tokens=summary.tokens,
        minutes=summary.seconds / 60,
        device_minutes=summary.busy_fraction * summary.seconds / 60,
        page=page,
    )


def boards(rows: Sequence[Row]) -> tuple[Board, ...]:
    """A table for each of KernelBench's levels, where there are several, and one of all tasks."""
    names = sorted({row.level for row in rows if row.level})
    parts = [(name, [row for row in rows if row.level == name]) for name in names]
    whole = ("all tasks", list(rows))
    return tuple(board(name, part) for name, part in ([*parts, whole] if len(parts) > 1 else [whole]))


def board(name: str, rows: Sequence[Row]) -> Board:
    """The table of `rows`. A task that one seed refused or left unfinished counts for none: seeds compare."""
    left_out = {row.task for row in rows if not row.counts}
    seeds = sorted({row.seed for row in rows})
    ordered = sorted((row for row in rows if row.task not in left_out), key=lambda row: row.task)
    by_seed = [[row for row in ordered if row.seed == seed] for seed in seeds]
    by_seed = [found for found in by_seed if found]

    def each(get: Callable[[Row], float]) -> Estimate | None:
        return estimate([statistics.fmean(map(get, found)) for found in by_seed])

    shares = [[row.roofline for row in found if row.roofline] for found in by_seed]
    return Board(
        name=name,
        num_tasks=len({row.task for row in rows} - left_out),
        num_seeds=len(by_seed),
        fates=dict(Counter(row.fate for row in rows)),
        lines=(
            _line("eager", by_seed, partial(_over, "eager")),
            _line(KERNELBENCH, by_seed, lambda row: row.kernelbench),
            *(_line(over, by_seed, partial(_over, over)) for over in BASELINES[1:]),
        ),
        faster=each(lambda row: row.surely_faster),
        roofline=estimate([geometric_mean(found) for found in shares if found]),
        usd=each(lambda row: row.usd),
        tokens=each(lambda row: row.tokens),
        evaluations=each(lambda row: row.evaluations),
        minutes=each(lambda row: row.minutes),
        device_minutes=each(lambda row: row.device_minutes),
    )


def _over(baseline: str, row: Row) -> float | None:
    return row.over.get(baseline)


def estimate(values: Sequence[float]) -> Estimate | None:
    """None of no values."""
    if not values:
        return None
    mean = statistics.fmean(values)
    low, high = mean_interval(values) if len(values) > 1 else (mean, mean)
    return Estimate(mean=mean, low=min(low, mean), high=max(high, mean), num_seeds=len(values))


def _line(over: str, by_seed: Sequence[Sequence[Row]], get: Callable[[Row], float | None]) -> Line:
    """`get` gives the speedup of a solved row; None where that is not known."""
    known: list[list[float]] = []
    missing = 0
    for rows in by_seed:
        solved = [row for row in rows if row.fate == "correct"]
        speedups = [value for row in solved if (value := get(row)) is not None]
        missing += len(solved) - len(speedups)
        if (
            speedups or not solved
        ):  # zeros alone would say that a baseline which nobody measured was not beaten
            known.append([*speedups, *[0.0] * (len(rows) - len(solved))])
    solved_only = [[value for value in speedups if value > 0] for speedups in known]
    return Line(
        over=over,
        solved=estimate([fast_p(speedups, 0.0) for speedups in known]),
        fast={f"{p:g}": estimate([fast_p(speedups, p) for speedups in known]) for p in FAST},
        geomean=estimate([geometric_mean(speedups) for speedups in solved_only if speedups]),
        missing=missing,
    )


def table(board: Board) -> list[list[str]]:
    """A board as cells: a column for each baseline, named in the first row, and a row for each figure."""
    rows = [["over", *(line.over for line in board.lines)]]
    rows.append(["correct", *(shown(line.solved, ".0%") for line in board.lines)])
    for name in map("{:g}".format, FAST):
        rows += [[f"fast_{name}", *(shown(line.fast[name], ".0%") for line in board.lines)]]
    surely = shown(board.faster, ".0%")
    rows.append(["surely faster", *(surely if line.over == "eager" else "–" for line in board.lines)])
    rows.append(["geometric mean", *(shown(line.geomean, suffix="x") for line in board.lines)])
    if any(line.missing for line in board.lines):
        rows.append(["solved, not measured", *(str(line.missing) for line in board.lines)])
    return rows


def shown(found: Estimate | None, form: str = "", suffix: str = "") -> str:
    """`1.40x [1.31, 1.52]`, the figure alone where it is of one seed or the same in all; a dash for None."""
    if found is None:
        return "–"
    mean, low, high = (format(v, form) if form else figure(v) for v in (found.mean, found.low, found.high))
    return f"{mean}{suffix}" if low == high else f"{mean}{suffix} [{low}, {high}]"


def spent(board: Board) -> str:
    """What one task took, in a line."""
    usd = f"${amount(board.usd.mean)}" if board.usd else "–"
    device = shown(board.device_minutes, ".1f")
    return (
        f"share of the roofline {shown(board.roofline, '.0%')}; a task took {usd}, "
        f"{shown(board.tokens, ',.0f')} tokens, {shown(board.evaluations, '.1f')} evaluations, "
        f"{shown(board.minutes, '.1f')} min, of the device {device} min"
    )


def extent(board: Board) -> str:
    """How many tasks and seeds, and what became of the searches."""
    told = [f"{board.fates[fate]} {text}" for fate, text in FATES.items() if board.fates.get(fate)]
    many = f"{plural(board.num_tasks, 'task')} counted, {plural(board.num_seeds, 'seed')}"
    alone = " (one seed: no interval; give more with --seeds)" if board.num_seeds == 1 else ""
    return f"{board.name}: {many}{alone}; searches: {', '.join(told)}"


def markdown(rows: Sequence[Row], title: str, about: Sequence[str]) -> str:
    """The tables, and a line for each search with its page."""
    parts = [f"# {title}", "", *(f"- {line}" for line in about), ""]
    for one in boards(rows):
        head, *lines = table(one)
        parts += [f"## {one.name}", "", f"{extent(one)}.", "", *_piped([head, ["---"] * len(head), *lines])]
        parts += ["", f"S{spent(one)[1:]}.", ""]
    head = ["task", "seed", "strict verdict", *BASELINES, "KernelBench", "roofline", "usd", "tokens", "min"]
    parts += ["## Each search", "", *_piped([head, ["---"] * len(head), *map(_search, rows)])]
    return "\n".join(parts) + "\n"


def _search(row: Row) -> list[str]:
    task = f"[{row.task}]({row.page})" if row.page else row.task
    reason = f": {row.reason}".replace("|", "\\|") if row.reason else ""
    verdict = row.fate + ("" if row.own_kernel or row.fate != "correct" else ", PyTorch's operators alone")
    over = [f"{figure(row.over[b])}x" if b in row.over else "–" for b in BASELINES]
    if row.interval and "eager" in row.over:
        over[0] += f" [{figure(row.interval[0])}, {figure(row.interval[1])}]"
    theirs = {None: "–", 0.0: "not correct"}.get(row.kernelbench) or f"{figure(row.kernelbench or 0.0)}x"
    share = f"{row.roofline:.0%}" if row.roofline else "–"
    costs = [amount(row.usd), f"{row.tokens:,}", f"{row.minutes:.1f}"]
    return [task, str(row.seed), verdict + reason, *over, theirs, share, *costs]


def _piped(rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in rows]
