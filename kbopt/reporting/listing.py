"""The terminal afterwards: the list of runs, and one candidate with all that is known of it.

Whatever comes from a kernel, a model or a compiler passes through `printable` first. What goes to a file
or a pipe is as wide as it is: only a terminal's lines are wrapped.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Column, Table
from rich.text import Text

from kbopt.core.evaluations import Result
from kbopt.core.outcomes import Measured, outcome_name
from kbopt.core.proposals import Trial
from kbopt.core.scoring import Standing
from kbopt.core.text import first_line
from kbopt.reporting.evidence import evidence
from kbopt.reporting.outcome_words import OUTCOME_STYLES, STATE_STYLES
from kbopt.reporting.text import plural, printable, speedup_text, standing_text, truncated

LOG_LIMIT_CHARS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One line of `kbopt runs`. `state` says whether it runs, ended (and why) or was cut off."""

    name: str
    task: str
    algorithm: str
    seed: int
    evaluations: int
    best: Standing | None
    state: str
    started: float


def print_runs(console: Console, rows: Sequence[RunRow]) -> None:
    """The runs in a folder, as the caller ordered them: a line each, or two where lines are short."""
    if not rows:
        console.print("no runs yet: `kbopt run` makes one")
        return
    table = _wide_table(rows)
    needed = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    if not console.is_terminal:
        Console(file=console.file, width=needed).print(table)
    elif needed <= console.width:
        console.print(table)
    else:
        console.print(_narrow_table(rows))


def _wide_table(rows: Sequence[RunRow]) -> Table:
    table = Table(box=None, padding=(0, 2), pad_edge=False)
    for heading in ("run", "task", "algorithm"):
        table.add_column(heading, no_wrap=True)
    for heading in ("seed", "evaluations", "best"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("started", "state"):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(
            Text(printable(row.name), style="bold"),
            Text(printable(row.task)),
            row.algorithm,
            str(row.seed),
            f"{row.evaluations:,}",
            _best(row),
            _started(row),
            Text(printable(row.state)),
        )
    return table


def _narrow_table(rows: Sequence[RunRow]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("best", justify="right", no_wrap=True)
    table.add_column("state", overflow="fold", ratio=1)
    for row in rows:
        kind = f"{printable(row.task)} {row.algorithm} seed {row.seed}"
        table.add_row(
            Text.assemble((printable(row.name), "bold"), "\n", (kind, "dim")),
            Text.assemble(_best(row), "\n", (plural(row.evaluations, "evaluation"), "dim")),
            Text.assemble(printable(row.state), "\n", (_started(row), "dim")),
        )
    return table


def _best(row: RunRow) -> Text:
    return Text(standing_text(row.best), style=STATE_STYLES[row.best.state] if row.best else "dim")


def _started(row: RunRow) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(row.started))


def print_cells(console: Console, rows: Sequence[Sequence[str]]) -> None:
    """A table of plain cells, the names of its columns first; in a pipe nothing is cut or wrapped."""
    table = Table(*(Column(Text(printable(name)), overflow="fold") for name in rows[0]), box=None)
    for row in rows[1:]:
        table.add_row(*(Text(printable(cell)) for cell in row))
    needed = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    if not console.is_terminal:
        console = Console(file=console.file, width=needed)
    console.print(table)


def print_candidate(
    console: Console,
    trial: Trial,
    *,
    parent_source: str | None,
    status: str = "",
    strategy: str = "",
    profiles: Sequence[str] = (),
) -> None:
    """One candidate: its figures, source, diff to its parent, feedback and the end of the compiler's log.

    It has no results where it was not evaluated; `status` then says why. `profiles` are what agents were told
    of what limits it.
    """
    candidate, results = trial.candidate, trial.results
    console.print(Rule(Text(f"candidate {printable(candidate.id)}"), align="left"))
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("proposer", Text(printable(candidate.proposer)))
    facts.add_row("parent", Text(printable(candidate.parent or "none: it starts a line")))
    if strategy:
        facts.add_row("strategy", Text(printable(strategy)))
    for told in profiles:
        facts.add_row("profiled", Text(printable(told)))
    if candidate.note:
        facts.add_row("note", Text(printable(candidate.note)))
    for result in results:
        facts.add_row("outcome", _result_text(result))
    if not results:
        facts.add_row("outcome", Text(printable(status or "not evaluated yet")))
    for belief in evidence(trial):
        facts.add_row(belief.name, Text(printable(belief.text)))
    console.print(facts)
    console.print(Rule("source", align="left", style="dim"))
    _print_code(console, candidate.source, "python")
    if parent_source is not None:
        diff = difflib.unified_diff(
            parent_source.splitlines(), candidate.source.splitlines(), "parent", candidate.id, lineterm=""
        )
        console.print(Rule("diff to the parent", align="left", style="dim"))
        _print_code(console, "\n".join(diff) or "the same source", "diff")
    for result in results[-1:]:
        console.print(Rule("feedback", align="left", style="dim"))
        console.print(Text(printable(result.feedback)), soft_wrap=True)
        if result.log:
            console.print(Rule("compiler log", align="left", style="dim"))
            console.print(Text(printable(truncated(result.log, LOG_LIMIT_CHARS))), soft_wrap=True)


def print_transcript(console: Console, brief: str, text: str) -> None:
    """The conversation with the model that answered `brief`, in full."""
    console.print(Rule(Text(f"prompt and answer of {printable(brief)}"), align="left"))
    console.print(Text(printable(text)), soft_wrap=True)


def _print_code(console: Console, source: str, language: str) -> None:
    text = printable(source)
    if console.is_terminal:
        console.print(Syntax(text, language, theme="ansi_dark", background_color="default", word_wrap=True))
    else:
        console.print(Text(text), soft_wrap=True)


def _result_text(result: Result) -> Text:
    name = outcome_name(result.outcome)
    text = Text(name, style=OUTCOME_STYLES[name])
    if isinstance(result.outcome, Measured):
        text.append(f"  {speedup_text(result.outcome.speedup, result.outcome.speedup_ci)}", style="bold")
    else:
        text.append(f"  {printable(first_line(result.outcome.reason, 200))}", style="default")
    text.append(f"  on {printable(result.device)}", style="dim")
    return text
