"""The page of a benchmark: its tables, what each task came to, and every search's kernel."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbopt.core import codec
from kbopt.reporting.history import fold
from kbopt.reporting.page_data import FEEDBACK_CHARS, coloured
from kbopt.reporting.report import render, write_page
from kbopt.reporting.run import Run
from kbopt.reporting.scoreboard import FATES, Board, Row, boards, extent, spent
from kbopt.reporting.text import truncated

SCRIPTS = ("elements.js", "charts.js", "frame.js", "kernels.js", "scoreboard.js")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The best kernel of a search, or the last one that was judged where none is correct: its source, what
    the judge said of it, and the command that judges it again. All are empty where nothing was judged.
    """

    source: str = ""
    feedback: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What was measured. `about` names the settings, `notes` are sentences for the top of the page."""

    title: str
    about: Mapping[str, str]
    notes: tuple[str, ...] = ()


def kernel_of(run: Run) -> Kernel:
    """What the page shows of `run`; reads its entries once."""
    history = fold(run.entries)
    judged = [node for node in history.nodes.values() if node.results and node.has_texts]
    node = history.best or (judged[-1] if judged else None)
    if node is None:
        return Kernel()
    last = node.full or node.results[-1]
    command = run.reproduce if node is history.best else ""
    return Kernel(source=node.candidate.source, feedback=last.feedback, command=command)


def write_scoreboard(header: Header, searches: Sequence[tuple[Row, Kernel]], out: Path) -> Path:
    """Write the page to `out` and return it. Raises `UserError` where it cannot be written."""
    return write_page(render(page_data(header, searches), header.title, SCRIPTS), out)


def page_data(header: Header, searches: Sequence[tuple[Row, Kernel]]) -> dict[str, Any]:
    """The page's data as plain JSON."""
    rows = [row for row, _ in searches]
    has_seeds = len({row.seed for row in rows}) > 1
    sources = coloured([kernel.source for _, kernel in searches])
    return {
        "made": time.time(),
        "title": header.title,
        "about": [list(pair) for pair in header.about.items() if pair[1]],
        "notes": list(header.notes),
        "fates": FATES,
        "boards": [_board(one) for one in boards(rows)],
        "rows": [
            {**_row(row, has_seeds), **_texts(kernel), "source": source}
            for (row, kernel), source in zip(searches, sources, strict=True)
        ],
    }


def _board(board: Board) -> dict[str, Any]:
    told = {"extent": extent(board), "spent": spent(board)}
    return {**codec.fields_of(board), **{name: f"{s[0].upper()}{s[1:]}." for name, s in told.items()}}


def _texts(kernel: Kernel) -> dict[str, str]:
    return {"feedback": truncated(kernel.feedback, FEEDBACK_CHARS), "command": kernel.command}


def _row(row: Row, has_seeds: bool) -> dict[str, Any]:
    fields = codec.fields_of(row)
    over = fields.pop("over")
    return {
        **fields,
        "name": f"{row.task}, seed {row.seed}" if has_seeds else row.task,
        "speedup": over.get("eager"),
        "compile": over.get("compile"),
        "max_autotune": over.get("max-autotune"),
        "ci": fields.pop("interval"),
        "kernelbench": None if row.kernelbench is None else row.kernelbench > 0,
        "kernelbench_speedup": row.kernelbench or None,
    }
