"""The terminal while a search goes on and when it ends: live progress, and the final table.

Progress belongs on stderr; the caller passes the `Console` that says where text goes. Whatever comes from
a kernel, a model or a compiler passes through `printable` first.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from kbopt.core.scoring import Standing
from kbopt.core.tally import amount
from kbopt.core.text import first_line
from kbopt.reporting.evidence import equal_code_text, kernelbench_text
from kbopt.reporting.summary import BestKernel, RunSummary
from kbopt.reporting.text import (
    duration,
    figure,
    over_text,
    plural,
    printable,
    standing_text,
)

OUTCOME_STYLES: Mapping[str, str] = {
    "measured": "green",
    "wrong_answer": "yellow",
    "compile_failed": "magenta",
    "crashed": "red",
    "timed_out": "blue",
    "rejected": "bright_red",
}
"""In the order in which outcomes are listed everywhere."""

STATE_STYLES: Mapping[str, str] = {
    "faster": "bold green",
    "not faster": "bold dim",
    "no custom kernel": "bold yellow",
}

LINE_WIDTH = 80
"""Characters of a progress line; what does not fit is left out, the least important first."""

LINE_INTERVAL_S = 15.0
"""Without a terminal a line is printed at least this often, and whenever the best or the backend changes."""

QUIET_S = 5.0
"""After this long without a result the view says since when."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressSnapshot:
    """One search at one moment, as far as a progress view shows it.

    `elapsed_s` counts the search's own seconds, without the time between sessions. `cached` results are those
    of a source that was measured before; `dropped` proposals were too near a known one, `failed` ones brought
    no source; `attempts` are results of kernels that agents had judged, no proposals; `in_flight` have no
    result yet, and the evaluator works on `evaluating` of them while `queue_length` wait for it.
    `busy_fraction` is the share of the time in which the device ran the reference or a candidate.
    `backend_state` is one of `kbopt.core.ports.BackendState`; `backend_boot` names the container or worker,
    `backend_age_s` is its age, `backend_detail` a sentence for the user. `quiet_s` is how long ago the last
    result came. Limits are None where the budget has none.
    """

    run: str
    task: str
    algorithm: str
    elapsed_s: float
    proposals: int
    evaluations: int
    max_evaluations: int | None
    best: Standing | None
    by_outcome: Mapping[str, int]
    busy_fraction: float
    backend_state: str
    backend_boot: str = ""
    backend_age_s: float = 0.0
    backend_detail: str = ""
    cached: int = 0
    dropped: int = 0
    failed: int = 0
    attempts: int = 0
    in_flight: int = 0
    evaluating: int = 0
    queue_length: int = 0
    quiet_s: float = 0.0
    usd: float = 0.0
    tokens: int = 0
    max_proposals: int | None = None
    max_usd: float | None = None
    max_tokens: int | None = None
    max_minutes: float | None = None

    @property
    def done(self) -> int:
        """Proposals whose fate is known: evaluated, seen before, dropped or failed."""
        return sum(self.by_outcome.values()) - self.attempts + self.dropped + self.failed

    @property
    def finishing(self) -> int:
        """How many results are awaited once nothing more is asked for, else 0."""
        asked = (
            (self.evaluations + self.in_flight, self.max_evaluations),
            (self.done + self.in_flight, self.max_proposals),
            (self.usd, self.max_usd),
            (self.tokens, self.max_tokens),
            (self.elapsed_s / 60, self.max_minutes),
        )
        return self.in_flight if any(limit and used >= limit for used, limit in asked) else 0


def done_fraction(snapshot: ProgressSnapshot) -> float | None:
    """How much of the budget that runs out first is spent, 0 to 1; None without any limit.

    Of evaluations and proposals the results count, not what was asked for.
    """
    spent = (
        (snapshot.evaluations, snapshot.max_evaluations),
        (snapshot.done, snapshot.max_proposals),
        (snapshot.usd, snapshot.max_usd),
        (snapshot.tokens, snapshot.max_tokens),
        (snapshot.elapsed_s / 60, snapshot.max_minutes),
    )
    shares = [used / limit for used, limit in spent if limit]
    return min(1.0, max(shares)) if shares else None


def eta_s(snapshot: ProgressSnapshot) -> float | None:
    """Seconds to the end at the pace up to the last result; None when nothing tells or it takes longer."""
    done = done_fraction(snapshot)
    if not done or not snapshot.done:
        return None
    if snapshot.finishing:
        done = min(done, snapshot.done / (snapshot.done + snapshot.finishing))
    pace_s = max(0.0, snapshot.elapsed_s - snapshot.quiet_s) / done
    left_s = pace_s * (1 - done) - snapshot.quiet_s
    return left_s if left_s > 0 else None


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
    grid.add_row("outcomes", _outcome_text(snapshot.by_outcome))
    if words := _uncounted(snapshot.cached, snapshot.dropped, snapshot.failed):
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


def _outcome_text(by_outcome: Mapping[str, int]) -> Text:
    text = Text()
    for name, style in OUTCOME_STYLES.items():
        if by_outcome.get(name):
            text.append(f"{'  ' if text else ''}{by_outcome[name]} {name}", style=style)
    return text or Text("nothing evaluated yet", style="dim")


def _uncounted(cached: int, dropped: int, failed: int) -> str:
    """The proposals that were not evaluated, and why; empty for none."""
    words = [
        f"{cached:,} seen before" if cached else "",
        f"{dropped:,} dropped as near-copies" if dropped else "",
        f"{failed:,} without a kernel" if failed else "",
    ]
    return ", ".join(filter(None, words))


def _best_text(best: Standing) -> Text:
    style = STATE_STYLES[best.state]
    low, high = best.speedup_ci
    claimed = "" if best.state == "faster" else f", {best.state}"
    text = Text(f"{figure(best.speedup)}x{claimed}", style=style)
    text.append(f"  95 % CI {figure(low)} to {figure(high)}", style="not bold dim")
    text.append(f", {best.kernel_ms:.3g} ms instead of {best.reference_ms:.3g} ms", style="not bold dim")
    return text


def _headline(best: BestKernel) -> Text:
    """`3.20x over eager PyTorch [3.00, 3.40], 1.40x over torch.compile [1.30, 1.50], 0.3 ms instead of 1 ms`,
    as the table at the end says it.
    """
    low, high = best.speedup_ci
    claimed = "" if best.state == "faster" else f", {best.state}"
    text = Text(f"{figure(best.speedup)}x over {best.ranked_over}{claimed}", style=STATE_STYLES[best.state])
    text.append(f" [{figure(low)}, {figure(high)}]", style="not bold dim")
    if best.strongest:
        text.append(f", {over_text(best.strongest)}", style="not bold default")
    text.append(f", {best.kernel_ms:.3g} ms instead of {best.reference_ms:.3g} ms", style="not bold dim")
    return text


def _evaluator(snapshot: ProgressSnapshot) -> str:
    words = [f"evaluating {snapshot.evaluating}" if snapshot.evaluating else "waiting for proposals"]
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


def print_outcome(console: Console, summary: RunSummary, files: Mapping[str, str], folder: str) -> None:
    """The final table of a search: what was found, where it lies, why it ended, and what to do next.

    `files` are the paths of the `kernel`, the `journal` and the `report`, as far as they exist.
    """
    table = Table(show_header=False, box=None, padding=(0, 2), pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    if summary.best is None:
        table.add_row("best", Text("no correct kernel", style="bold red"))
        for error in summary.errors[:5]:
            table.add_row("", Text(f"{error.count} x {printable(first_line(error.text, 160))}", style="dim"))
    else:
        table.add_row("best", _headline(summary.best))
        if summary.best.final_fault:
            said = f"when it was evaluated in full, it was {summary.best.final_fault}"
            table.add_row("", Text(printable(said), style="bold red"))
        if summary.best.by_workload:
            table.add_row("workloads", Text(printable(summary.best.by_workload)))
        if summary.best.kernelbench:
            said = f"by its own protocol {kernelbench_text(summary.best.kernelbench)}"
            table.add_row("KernelBench", Text(printable(said)))
        if summary.best.equal_code:
            said = f"{equal_code_text(summary.best.equal_code)}: the task's own model, judged as a candidate"
            table.add_row("equal code", Text(printable(said)))
    table.add_row("ended", Text(printable(summary.ended or "stopped before its end")))
    table.add_row("outcomes", _outcome_text(summary.by_outcome))
    table.add_row("proposals", _proposals(summary))
    busy = f"ran kernels {summary.busy_fraction:.0%} of {duration(summary.seconds)}"
    table.add_row("device", Text(printable(", ".join((*summary.devices, busy)))))
    if summary.usd or summary.tokens:
        table.add_row("spent", Text(f"${amount(summary.usd)}, {summary.tokens:,} tokens"))
    for rent in summary.containers:
        spent = f"{rent.gpu} for {duration(rent.seconds)}, ${amount(rent.usd)} of that"
        table.add_row("container", Text(spent))
    for name, path in files.items():
        table.add_row(name, Text(printable(path)))
    console.print(Rule(Text(f"{printable(summary.task)}  {summary.algorithm}"), align="left"))
    console.print(table)
    words = ["report {} --open", "show {}", *(["export {}"] if summary.best else [])]
    following = " | ".join(f"kbopt {word.format(shlex.quote(folder))}" for word in words)
    console.print(Text(f"next: {printable(following)}"), soft_wrap=True)


def _proposals(summary: RunSummary) -> str:
    """Where the proposals went: `25: 18 evaluated, 7 seen before`."""
    evaluated = [plural(summary.evaluations, "evaluation")]
    if summary.repeats:
        evaluated.append(f"{plural(summary.repeats, 'repeat')} among them")
    rest = _uncounted(summary.cached, summary.num_dropped, summary.proposals_failed)
    return ", ".join(filter(None, (f"{summary.proposals:,}: {evaluated[0]}", *evaluated[1:], rest)))
