"""The terminal while a search goes on.

Progress belongs on stderr; the caller passes the `Console` that says where text goes. Whatever comes from
a kernel, a model or a compiler passes through `printable` first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kbopt.core.scoring import Standing
from kbopt.core.tally import amount
from kbopt.reporting.outcome_words import OUTCOME_STYLES, STATE_STYLES, outcome_text, uncounted
from kbopt.reporting.progress import ProgressSnapshot, activity, done_fraction, eta_s
from kbopt.reporting.text import duration, figure, plural, printable, standing_text

LINE_WIDTH = 80
"""Characters of a progress line; what does not fit is left out, the least important first."""

LINE_INTERVAL_S = 15.0
"""Without a terminal a line is printed at least this often, and whenever the best or the backend changes."""

QUIET_S = 5.0
"""After this long without a result the view says since when."""


class ProgressView:
    """Shows the latest `ProgressSnapshot`: one redrawn panel on a terminal, plain lines elsewhere.

    A context manager. `update` is cheap to call often; drawing is limited to four times a second.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=False)
        self._shown: ProgressSnapshot | None = None
        self._last_result = (0, 0.0)

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
        if snapshot.done != self._last_result[0]:
            self._last_result = (snapshot.done, snapshot.elapsed_s)
        snapshot = replace(snapshot, quiet_s=max(0.0, snapshot.elapsed_s - self._last_result[1]))
        if self._console.is_terminal:
            self._live.update(progress_panel(snapshot))
        elif self._shown is None or _is_news(self._shown, snapshot):
            if self._shown is None or _backend_of(self._shown) != _backend_of(snapshot):
                self.note(f"backend {_backend(snapshot)}")
            self._shown = snapshot
            self._console.print(Text(progress_line(snapshot)), soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a sentence above the view, such as why the search waits."""
        self._console.print(Text(printable(text)), soft_wrap=True)


def _backend_of(snapshot: ProgressSnapshot) -> tuple[str, str]:
    return snapshot.backend_state, snapshot.backend_boot


def _is_news(shown: ProgressSnapshot, snapshot: ProgressSnapshot) -> bool:
    return (
        snapshot.elapsed_s - shown.elapsed_s >= LINE_INTERVAL_S
        or snapshot.best != shown.best
        or _backend_of(snapshot) != _backend_of(shown)
    )


def progress_line(snapshot: ProgressSnapshot) -> str:
    """The snapshot in one line of at most `LINE_WIDTH` characters."""
    best, failed = snapshot.best, _failed_words(snapshot.by_outcome)
    parts = [f"{clock(snapshot.elapsed_s)}  {_count(snapshot)}"]
    parts.append(f"best {standing_text(best)}" if best else "nothing correct yet")
    parts += filter(None, [activity(snapshot.phases, most=2)])
    if snapshot.finishing:
        parts.append(f"finishing {snapshot.finishing}")
    elif (left_s := eta_s(snapshot)) is not None:
        parts.append(f"~{clock(left_s)} left")
    elif snapshot.quiet_s >= QUIET_S:
        parts.append(f"no result for {snapshot.quiet_s:.0f} s")
    if best:
        parts.append(f"{best.kernel_ms:.3g} of {best.reference_ms:.3g} ms")
    if snapshot.usd:
        parts.append(f"${amount(snapshot.usd)}")
    parts += [f"{snapshot.cached:,} seen before"] * bool(snapshot.cached)
    parts += [failed] * bool(failed)
    line = parts[0]
    for part in parts[1:]:
        if len(line) + len(part) + 3 <= LINE_WIDTH:
            line += f" | {part}"
    return printable(line)


def clock(seconds: float) -> str:
    """`0:35`, `12:04`, `1:00:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def progress_panel(snapshot: ProgressSnapshot) -> RenderableType:
    """The snapshot as one screen of a terminal."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("best", _best_text(snapshot.best) if snapshot.best else "nothing correct yet")
    grid.add_row("outcomes", outcome_text(snapshot.by_outcome))
    if words := uncounted(snapshot.cached, snapshot.dropped, snapshot.failed):
        grid.add_row("", Text(words, style="dim"))
    grid.add_row("evaluator", Text(_evaluator(snapshot)))
    grid.add_row("backend", Text(printable(_backend(snapshot))))
    if snapshot.usd or snapshot.tokens or snapshot.max_usd or snapshot.max_tokens:
        grid.add_row("spent", Text(_spent(snapshot)))
    grid.add_row("time", Text(_times(snapshot)))
    title = Text.assemble((printable(snapshot.task), "bold"), f"  {snapshot.algorithm}  ", style="default")
    done = done_fraction(snapshot)
    bar = Table.grid(expand=True)  # a bar alone ends no line
    if done is not None:
        bar.add_row(ProgressBar(total=1.0, completed=done))
    return Panel(
        Group(Text(_count(snapshot)), bar, grid),
        title=title,
        title_align="left",
        subtitle=Text(printable(snapshot.run), style="dim"),
        subtitle_align="right",
        border_style="cyan",
    )


def _count(snapshot: ProgressSnapshot) -> str:
    """How far the search is by the limit that it reaches first."""
    evaluated, proposed = snapshot.max_evaluations, snapshot.max_proposals
    if proposed and (not evaluated or snapshot.done / proposed > snapshot.evaluations / evaluated):
        return f"{_of(snapshot.done, proposed)} results"
    return f"{_of(snapshot.evaluations, evaluated)} evaluated"


def _of(count: int, limit: int | None) -> str:
    return f"{count:,}" if limit is None else f"{count:,}/{limit:,}"


def _failed_words(by_outcome: Mapping[str, int]) -> str:
    seen = (f"{by_outcome[name]} {name}" for name in OUTCOME_STYLES if by_outcome.get(name))
    return ", ".join(words for words in seen if not words.endswith(" measured"))


def _best_text(best: Standing) -> Text:
    style = STATE_STYLES[best.state]
    low, high = best.speedup_ci
    claimed = "" if best.state == "faster" else f", {best.state}"
    text = Text(f"{figure(best.speedup)}x{claimed}", style=style)
    text.append(f"  95 % CI {figure(low)} to {figure(high)}", style="not bold dim")
    text.append(f", {best.kernel_ms:.3g} ms instead of {best.reference_ms:.3g} ms", style="not bold dim")
    return text


def _evaluator(snapshot: ProgressSnapshot) -> str:
    words = [f"evaluating {snapshot.evaluating}" if snapshot.evaluating else "waiting for proposals"]
    if doing := activity(snapshot.phases):
        waiting = snapshot.phases.get("waiting", 0)
        for_device = f", {waiting} waiting for the device" if waiting and "waiting" not in doing else ""
        words[0] += f" ({doing}{for_device})"
    if snapshot.queue_length:
        words.append(f"{snapshot.queue_length} in the queue")
    if snapshot.quiet_s >= QUIET_S:
        words.append(f"last result {duration(snapshot.quiet_s)} ago")
    words.append(f"busy {snapshot.busy_fraction:.0%} of the time")
    return ", ".join(words)


def _backend(snapshot: ProgressSnapshot) -> str:
    facts = [snapshot.backend_detail] if snapshot.backend_detail else []
    if snapshot.backend_state == "warm" and snapshot.backend_boot:
        facts.insert(0, f"boot {snapshot.backend_boot}, up {duration(snapshot.backend_age_s)}")
    return snapshot.backend_state + (f" ({'; '.join(facts)})" if facts else "")


def _spent(snapshot: ProgressSnapshot) -> str:
    usd = f"${amount(snapshot.usd)}" + (f" of ${amount(snapshot.max_usd)}" if snapshot.max_usd else "")
    return f"{usd}, {_of(snapshot.tokens, snapshot.max_tokens)} tokens"


def _times(snapshot: ProgressSnapshot) -> str:
    left_s = eta_s(snapshot)
    parts = [duration(snapshot.elapsed_s)]
    if snapshot.finishing:
        parts.append(f"finishing {plural(snapshot.finishing, 'evaluation')}")
    if left_s is not None:
        parts.append(f"about {duration(left_s)} left")
    return ", ".join(parts)
