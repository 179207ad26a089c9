"""A sweep on the terminal when it ends: its searches by task and algorithm."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table

from kbopt.reporting.comparison import compare, shown
from kbopt.reporting.summary import RunSummary


def print_table(summaries: Sequence[RunSummary], *, shared: bool = False) -> None:
    """Speedups by task and algorithm, then each algorithm over all tasks, with the spread over seeds."""
    comparison = compare(summaries)
    console = Console()
    console.print("Means over seeds (lowest to highest seed); the speedup is 0 where no kernel is correct.\n")
    cells = Table("task", "algorithm", "speedup", "evaluations", box=None)
    for cell in sorted(comparison.cells, key=lambda cell: cell.task):
        cells.add_row(cell.task, cell.algorithm, shown(cell.speedup), f"{cell.evaluations:.0f}")
    console.print(cells)
    console.print("\nOver all tasks; fast_p: the share that is correct and more than p times as fast.\n")
    name = Column("algorithm", min_width=max(len(row.algorithm) for row in comparison.algorithms))
    rows = Table(name, "geomean", "fast_0.5", "fast_1.0", "fast_1.05", box=None)
    for row in comparison.algorithms:
        shares = [shown(figure, ".0%") for figure in (row.fast_05, row.fast_1, row.fast_105)]
        rows.add_row(row.algorithm, shown(row.geomean), *shares)
    console.print(rows)
    if shared:
        console.print(
            "\nResults were shared: a source was measured once for all algorithms and seeds, so their "
            "figures are not independent."
        )
