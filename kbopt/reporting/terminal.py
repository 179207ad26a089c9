"""The terminal while a search goes on and when it ends: live progress, and the final table.

Progress belongs on stderr; the caller passes the `Console` that says where text goes. Whatever comes from
a kernel, a model or a compiler passes through `printable` first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from kbopt.core.types import Rent
from kbopt.reporting.text import duration, figure, first_line, printable, speedup_text

OUTCOME_STYLES: Mapping[str, str] = {
    "measured": "green",
    "wrong_answer": "yellow",
    "compile_failed": "magenta",
    "crashed": "red",
    "timed_out": "blue",
    "rejected": "bright_red",
}
"""In the order in which outcomes are listed everywhere."""

LINE_INTERVAL_S = 15.0
"""Without a terminal a line is printed at least this often, and whenever the best or the backend changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressSnapshot:
    """One search at one moment, as far as a progress view shows it.

    `elapsed_s` counts the search's own seconds, without the time between sessions. `busy_fraction` is the
    share of them in which the device ran the reference or a candidate. `backend_state` is one of
    `kbopt.core.ports.BackendState`; `backend_boot` names the container or worker, `backend_age_s` is its age,
    `backend_detail` a sentence for the user. Limits are None where the budget has none.
    """

    run: str
    task: str
    algorithm: str
    elapsed_s: float
    proposals: int
    evaluations: int
    max_evaluations: int | None
    best_speedup: float | None
    best_ci: tuple[float, float] | None
    by_outcome: Mapping[str, int]
    busy_fraction: float
    backend_state: str
    backend_boot: str = ""
    backend_age_s: float = 0.0
    backend_detail: str = ""
    queue_length: int = 0
    usd: float = 0.0
    tokens: int = 0
    max_proposals: int | None = None
    max_usd: float | None = None
    max_tokens: int | None = None
    max_minutes: float | None = None


def done_fraction(snapshot: ProgressSnapshot) -> float | None:
    """How much of the budget that runs out first is spent, 0 to 1; None without any limit."""
    spent = (
        (snapshot.evaluations, snapshot.max_evaluations),
        (snapshot.proposals, snapshot.max_proposals),
        (snapshot.usd, snapshot.max_usd),
        (snapshot.tokens, snapshot.max_tokens),
        (snapshot.elapsed_s / 60, snapshot.max_minutes),
    )
    shares = [used / limit for used, limit in spent if limit]
    return min(1.0, max(shares)) if shares else None


def eta_s(snapshot: ProgressSnapshot) -> float | None:
    """Seconds to the end if the rest of the budget goes at the pace so far; None when nothing tells."""
    done = done_fraction(snapshot)
    if not done:
        return None
    return snapshot.elapsed_s * (1 - done) / done


class ProgressView:
    """Shows the latest `ProgressSnapshot`: one redrawn panel on a terminal, plain lines elsewhere.

    A context manager. `update` is cheap to call often; drawing is limited to four times a second.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=False)
        self._shown: ProgressSnapshot | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def update(self, snapshot: ProgressSnapshot) -> None:
        if self._console.is_terminal:
            self._live.update(progress_panel(snapshot))
        elif self._shown is None or _is_news(self._shown, snapshot):
            self._shown = snapshot
            self._console.print(Text(progress_line(snapshot)), soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a sentence above the view, such as why the search waits."""
        self._console.print(Text(printable(text)), soft_wrap=True)


def _is_news(shown: ProgressSnapshot, snapshot: ProgressSnapshot) -> bool:
    return (
        snapshot.elapsed_s - shown.elapsed_s >= LINE_INTERVAL_S
        or snapshot.best_speedup != shown.best_speedup
        or (snapshot.backend_state, snapshot.backend_boot) != (shown.backend_state, shown.backend_boot)
    )


def progress_line(snapshot: ProgressSnapshot) -> str:
    """The snapshot in one line of text."""
    eta = eta_s(snapshot)
    parts = [
        f"[{duration(snapshot.elapsed_s)}]",
        f"{_of(snapshot.evaluations, snapshot.max_evaluations)} evaluations,",
        f"best {speedup_text(snapshot.best_speedup, snapshot.best_ci)},",
        f"{_outcome_words(snapshot.by_outcome)},",
        f"evaluator busy {snapshot.busy_fraction:.0%},",
        f"backend {_backend(snapshot)},",
        f"queue {snapshot.queue_length}" + (f", ${snapshot.usd:.2f}" if snapshot.usd else ""),
    ]
    if eta is not None:
        parts.append(f", about {duration(eta)} left")
    return printable(" ".join(parts).replace(" ,", ","))


def progress_panel(snapshot: ProgressSnapshot) -> RenderableType:
    """The snapshot as one screen of a terminal."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("best", _best_text(snapshot, "x"))
    grid.add_row("outcomes", _outcome_text(snapshot.by_outcome))
    grid.add_row(
        "evaluator", Text(f"busy {snapshot.busy_fraction:.0%}, {snapshot.queue_length} in the queue")
    )
    grid.add_row("backend", Text(printable(_backend(snapshot))))
    grid.add_row("spent", Text(_spent(snapshot)))
    grid.add_row("time", Text(_times(snapshot)))
    title = Text.assemble((printable(snapshot.task), "bold"), f"  {snapshot.algorithm}  ", style="default")
    progress = Text(f"{_of(snapshot.evaluations, snapshot.max_evaluations)} evaluations")
    progress.append(f"  {_of(snapshot.proposals, snapshot.max_proposals)} proposals", style="dim")
    done = done_fraction(snapshot)
    bar = Table.grid(expand=True)  # a bar alone ends no line
    if done is not None:
        bar.add_row(ProgressBar(total=1.0, completed=done))
    return Panel(
        Group(progress, bar, grid),
        title=title,
        title_align="left",
        subtitle=Text(printable(snapshot.run), style="dim"),
        subtitle_align="right",
        border_style="cyan",
    )


def _of(count: int, limit: int | None) -> str:
    return f"{count:,}" if limit is None else f"{count:,}/{limit:,}"


def _outcome_words(by_outcome: Mapping[str, int]) -> str:
    seen = [f"{by_outcome[name]} {name}" for name in OUTCOME_STYLES if by_outcome.get(name)]
    return ", ".join(seen) or "nothing evaluated yet"


def _outcome_text(by_outcome: Mapping[str, int]) -> Text:
    text = Text()
    for name, style in OUTCOME_STYLES.items():
        if by_outcome.get(name):
            text.append(f"{'  ' if text else ''}{by_outcome[name]} {name}", style=style)
    return text or Text("nothing evaluated yet", style="dim")


def _best_text(snapshot: ProgressSnapshot, unit: str) -> Text:
    if snapshot.best_speedup is None:
        return Text("nothing correct yet", style="dim")
    text = Text(f"{figure(snapshot.best_speedup)}{unit}", style="bold green")
    if snapshot.best_ci:
        low, high = snapshot.best_ci
        text.append(f"  95 % CI {figure(low)} to {figure(high)}", style="not bold dim")
    return text


def _backend(snapshot: ProgressSnapshot) -> str:
    facts = [snapshot.backend_detail] if snapshot.backend_detail else []
    if snapshot.backend_state == "warm" and snapshot.backend_boot:
        facts.insert(0, f"boot {snapshot.backend_boot}, up {duration(snapshot.backend_age_s)}")
    return snapshot.backend_state + (f" ({'; '.join(facts)})" if facts else "")


def _spent(snapshot: ProgressSnapshot) -> str:
    usd = f"${snapshot.usd:.2f}" + (f" of ${snapshot.max_usd:.2f}" if snapshot.max_usd else "")
    return f"{usd}, {_of(snapshot.tokens, snapshot.max_tokens)} tokens"


def _times(snapshot: ProgressSnapshot) -> str:
    eta = eta_s(snapshot)
    left = "" if eta is None else f", about {duration(eta)} left"
    return duration(snapshot.elapsed_s) + left


def print_outcome(
    console: Console,
    snapshot: ProgressSnapshot,
    *,
    reason: str,
    kernel: str | None = None,
    journal: str | None = None,
    report: str | None = None,
    errors: Sequence[tuple[str, int]] = (),
    containers: Sequence[Rent] = (),
) -> None:
    """The final table of a search: what was found, where it lies, or why nothing was found.

    `reason` is why the search ended, `errors` the commonest ones with their counts, shown where no
    kernel was correct. `containers` were rented. `kernel`, `journal` and `report` are paths, left out
    where there is none.
    """
    table = Table(show_header=False, box=None, padding=(0, 2), pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    if snapshot.best_speedup is None:
        table.add_row("best", Text("no correct kernel", style="bold red"))
        for error, count in errors[:5]:
            table.add_row("", Text(f"{count} x {printable(first_line(error, 160))}", style="dim"))
    else:
        table.add_row("best", _best_text(snapshot, "x the speed of eager PyTorch"))
    rows = (("kernel", kernel), ("journal", journal), ("report", report))
    table.add_row("ended", Text(printable(reason)))
    table.add_row("outcomes", _outcome_text(snapshot.by_outcome))
    table.add_row("evaluations", f"{snapshot.evaluations:,}")
    table.add_row("proposals", f"{snapshot.proposals:,}")
    table.add_row("evaluator", f"busy {snapshot.busy_fraction:.0%} of {duration(snapshot.elapsed_s)}")
    if snapshot.usd or snapshot.tokens:
        table.add_row("spent", Text(_spent(snapshot)))
    for rent in containers:
        table.add_row("container", Text(f"{rent.gpu} for {duration(rent.seconds)}, ${rent.usd:.2f} of that"))
    for name, path in rows:
        if path is not None:
            table.add_row(name, Text(printable(path)))
    console.print(Rule(Text(f"{printable(snapshot.task)}  {snapshot.algorithm}"), align="left"))
    console.print(table)
