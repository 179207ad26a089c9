"""Drives a sweep to its end: a line of progress every few seconds, then its table."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from kbopt.cli import INFRA_ERROR, exit_interrupted
from kbopt.cli.output import print_json, to_stderr
from kbopt.core.errors import UserError
from kbopt.core.tally import amount
from kbopt.core.text import plural

if TYPE_CHECKING:
    from kbopt.cluster.messages import CoordinatorStatus, EvaluatorStatus
    from kbopt.follow import SweepWandb
    from kbopt.sweep import SweepConfig

PROGRESS_S = 5.0


def run_sweep(
    config: SweepConfig,
    folder: Path,
    *,
    address: str | None,
    nodes: int = 1,
    as_json: bool,
    use_wandb: bool = False,
    project_name: str = "",
    wandb_mode: Literal["online", "offline"] | None = None,
) -> Mapping[str, object]:
    """Drive the sweep to its end and print its table or JSON; exits with an error if a search failed.

    With `use_wandb` each search is logged as a W&B run in `project_name`, grouped by the sweep's name.
    """
    from kbopt import sweep as sweeps
    from kbopt.finish import keep_lessons
    from kbopt.follow import SweepWandb, WandbOptions
    from kbopt.reporting.sweep_table import print_table

    wandb_log = None
    if use_wandb and (options := WandbOptions.of(project_name, wandb_mode, to_stderr)):
        wandb_log = SweepWandb(config.name, folder, options, config.backend)
    again = "it goes on without this driver" if address else how_to_resume(folder)
    started = time.monotonic()
    status = drive(config, folder, address=address, nodes=nodes, again=again, wandb_log=wandb_log)
    seconds = time.monotonic() - started
    if status.stopped:
        click.echo(f"stopped; {how_to_resume(folder)}", err=True)
    failures = [(search.name, search.failure) for search in status.searches if search.failure]
    for name, failure in failures:
        click.echo(f"{name}: {failure.message}", err=True)
    searches = sweeps.finish_all(config, folder)
    document = sweeps.sweep_document(config, searches, seconds)
    if as_json:
        print_json(document)
    else:
        print_table([search.summary for search in searches], shared=config.shares_results)
    kept = sum(keep_lessons(folder / run.name) for run in config.runs())
    if kept:
        click.echo(f"{plural(kept, 'lesson')} added to {config.proposer.library}", err=True)
    if wandb_log and wandb_log.failed:
        click.echo(f"Weights & Biases: {wandb_log.failed}", err=True)
    if any(failure.kind == "infra" for _, failure in failures):
        click.echo(f"What was measured is in {folder}; {how_to_resume(folder)}", err=True)
        sys.exit(INFRA_ERROR)
    if failures:
        raise UserError(f"{len(failures)} of {len(searches)} searches could not run")
    return document


def drive(
    config: SweepConfig,
    folder: Path,
    *,
    address: str | None,
    nodes: int = 1,
    again: str,
    wandb_log: SweepWandb | None = None,
) -> CoordinatorStatus:
    """Run the searches with a line of progress every few seconds. After Ctrl-C it says `again` and exits."""
    from kbopt import sweep as sweeps

    config_in_force = sweeps.in_force(config, folder)
    progress = Progress(config_in_force)

    def on_status(status: CoordinatorStatus, evaluator: EvaluatorStatus) -> None:
        progress(status, evaluator)
        if wandb_log:
            wandb_log(status)

    to_stderr(extent(config_in_force))
    try:
        return sweeps.drive(config, folder, address=address, nodes=nodes, on_status=on_status, say=to_stderr)
    except KeyboardInterrupt:
        click.echo(f"stopped; {again}. What was measured is in {folder}", err=True)
        exit_interrupted()


def how_to_resume(folder: Path) -> str:
    """The command that goes on with the sweep in `folder`."""
    return f"go on with: kbopt sweep resume {folder}"


def extent(config: SweepConfig) -> str:
    """How much the sweep is going to be, in a line."""
    sizes = {
        "task": len(config.tasks),
        "algorithm": len(config.algorithms),
        "seed": len(config.seeds),
    }
    product = " x ".join(plural(count, name) for name, count in sizes.items())
    searches = math.prod(sizes.values())
    budget = config.settings.budget
    each = budget.evaluations or config.settings.num_total_proposals
    is_shared = config.spend == "headroom" and budget.evaluations
    usd = "" if budget.usd is None else f", at most {amount(budget.usd * searches)} dollars in all"
    return (
        f"{plural(searches, 'search', 'searches')}: {product}, "
        f"{'on average' if is_shared else 'up to'} {plural(each, 'evaluation')} each, "
        f"{searches * each:,} in all{usd}; --max-evals makes it smaller"
    )


class Progress:
    """A line on stderr every few seconds: searches done, evaluations, busy share, dollars, time left.

    The time left is told by the pace of this session, and by how much of each search's budget is spent.
    """

    def __init__(self, config: SweepConfig) -> None:
        self._shared = config.shared
        self._started = time.monotonic()
        self._said = -PROGRESS_S
        self._done_at_first: float | None = None

    def __call__(self, status: CoordinatorStatus, evaluator: EvaluatorStatus) -> None:
        from kbopt.reporting.progress import activity
        from kbopt.reporting.text import duration

        elapsed_s = time.monotonic() - self._started
        if elapsed_s - self._said < PROGRESS_S and not status.finished:
            return
        self._said = elapsed_s
        over = sum(search.ended is not None or search.failure is not None for search in status.searches)
        evaluations = sum(search.progress.evaluations for search in status.searches)
        usd = sum(search.progress.usd for search in status.searches)
        busy = evaluator.device_s / evaluator.uptime_s if evaluator.uptime_s else 0.0
        doing = "".join(f"{part}, " for part in [activity(evaluator.backend.phases)] if part)
        left_s = self._left_s(status, evaluator, elapsed_s)
        eta = f", about {duration(left_s)} left" if left_s else ""
        click.echo(
            f"[{elapsed_s:.0f} s] {over}/{plural(len(status.searches), 'search', 'searches')}, "
            f"{plural(evaluations, 'evaluation')}, "
            f"evaluator {doing}busy {busy:.0%}, queue {evaluator.queue_length}, ${usd:.2f}{eta}",
            err=True,
        )

    def _left_s(
        self, status: CoordinatorStatus, evaluator: EvaluatorStatus, elapsed_s: float
    ) -> float | None:
        """Seconds to the end; None where nothing was done yet that tells the pace."""
        from kbopt.driver import snapshot
        from kbopt.reporting.progress import done_fraction

        shared, done = self._shared, 0.0
        for search in status.searches:
            is_over = search.ended is not None or search.failure is not None
            spent = done_fraction(snapshot(search, evaluator))
            done += 1.0 if is_over else spent or 0.0
        if shared:  # A search may use more than its part, and what it leaves is used by the others.
            used = sum(search.progress.evaluations for search in status.searches)
            usd = sum(search.progress.usd for search in status.searches)
            parts = ((used, shared.evaluations), (usd, shared.usd))
            shares = [part / limit for part, limit in parts if limit]
            done = len(status.searches) * max(shares, default=0.0)
        if self._done_at_first is None:
            self._done_at_first = done
        gained = done - self._done_at_first
        return elapsed_s * (len(status.searches) - done) / gained if gained > 0 else None
