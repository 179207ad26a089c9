"""The terminal when a search ends: what was found, and what to do next.

Whatever comes from a kernel, a model or a compiler passes through `printable` first.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from kbopt.core.tally import amount
from kbopt.core.text import first_line
from kbopt.reporting.evidence import equal_code_text, kernelbench_text
from kbopt.reporting.outcome_words import STATE_STYLES, outcome_text, uncounted
from kbopt.reporting.summary import BestKernel, RunSummary
from kbopt.reporting.text import duration, figure, over_text, plural, printable


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
        if summary.best.faster:
            table.add_row("", Text(printable(summary.best.faster), style="yellow"))
        if summary.best.by_workload:
            table.add_row("workloads", Text(printable(summary.best.by_workload)))
        if summary.best.kernelbench:
            said = f"by its own protocol {kernelbench_text(summary.best.kernelbench)}"
            table.add_row("KernelBench", Text(printable(said)))
        if summary.best.equal_code:
            said = f"{equal_code_text(summary.best.equal_code)}: the task's own model, judged as a candidate"
            table.add_row("equal code", Text(printable(said)))
    for one in summary.raised:
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(one.time))
        said = f"{one.text}, on {when}, after {duration(one.minutes * 60)}"
        table.add_row("raised", Text(printable(said)))
    table.add_row("ended", Text(printable(summary.ended or "stopped before its end")))
    table.add_row("outcomes", outcome_text(summary.by_outcome))
    table.add_row("proposals", _proposals(summary))
    busy = f"ran kernels {summary.busy_fraction:.0%} of {duration(summary.seconds)}"
    table.add_row("device", Text(printable(", ".join((*summary.devices, busy)))))
    if stages := _stages(summary):
        table.add_row("evaluator", stages)
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
    rest = uncounted(summary.cached, summary.num_dropped, summary.proposals_failed)
    return ", ".join(filter(None, (f"{summary.proposals:,}: {evaluated[0]}", *evaluated[1:], rest)))


STAGE_WORDS = {"queue": "waiting", "compile": "building", "check": "checking", "time": "timing"}
"""What the evaluator did in each stage, in the words of the progress line."""


def _stages(summary: RunSummary) -> str:
    """What became of the evaluations' time: `12 s waiting, 30 s building`; all of them added up."""
    spent = (
        f"{duration(seconds)} {word}"
        for stage, word in STAGE_WORDS.items()
        if (seconds := summary.stage_seconds.get(stage, 0.0)) >= 0.1
    )
    return ", ".join(spent)
