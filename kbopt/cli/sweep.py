"""`kbopt sweep`: many searches over one evaluator, and what became of them."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from kbopt.cli import INFRA_ERROR, exit_interrupted, parsed
from kbopt.cli import options as shared
from kbopt.cli.grouped import BUDGET, DEVICE, Group
from kbopt.cli.options import option
from kbopt.cli.values import Name, sweep_folder
from kbopt.core.errors import UserError
from kbopt.core.spending import Spend

if TYPE_CHECKING:
    from kbopt.cluster.messages import CoordinatorStatus, EvaluatorStatus
    from kbopt.core.types import Verdict
    from kbopt.finish import Finished
    from kbopt.follow import SweepWandb
    from kbopt.sweep import SweepConfig

PROGRESS_S = 5.0


out_option = option(
    "--out", type=click.Path(path_type=Path), default=Path("sweeps"), help="The folder of all sweeps."
)
address_option = option(
    "--address", group=DEVICE, help="A Ray cluster, e.g. auto. Default: this machine alone."
)
nodes_option = option(
    "--nodes",
    group=DEVICE,
    type=click.IntRange(1),
    default=1,
    help="Wait until the cluster has so many: right after `ray up` only the head is there.",
)
json_option = option("--json", "as_json", is_flag=True, help="One JSON document on stdout and nothing else.")


@click.group(
    cls=Group,
    invoke_without_command=True,
    short_help="Many searches over one evaluator; status, stop, results.",
)
@option(
    "--tasks",
    "task_names",
    default="quick",
    help="Tasks, with patterns: matmul, quick/*, level1/1..5, sim/smooth.",
)
@option("--algorithms", default="PS", help="PS,PS_epsNet,best_of_n,...")
@option("--seeds", default="1", help="How many (5), or which (0..4 or 3,7).")
@shared.kernelbench_option
@shared.workloads_option
@shared.start_option
@shared.options(*shared.each_search_options)
@shared.budget_options
@shared.proposer_options
@shared.backend_options
@shared.protocol_options
@shared.many_options
@option(
    "--share-results", is_flag=True, help="Measure a source once for all algorithms and seeds, not for each."
)
@option(
    "--spend",
    group=BUDGET,
    type=Name("way to spend", Spend),
    default="evenly",
    help="Give each search --max-evals evaluations, or all of them as many together and the later ones where "
    "most is expected of them (headroom).",
)
@shared.search_verdict_option
@option("--name", default="sweep", help="Its name; its folder is OUT/NAME.")
@out_option
@address_option
@nodes_option
@json_option
@shared.wandb_options
@click.pass_context
def sweep(
    context: click.Context,
    /,
    task_names: str,
    algorithms: str,
    seeds: str,
    kernelbench: Path | None,
    workloads: str | None,
    explorers: int,
    parallel_searches: int,
    share_results: bool,
    spend: Spend,
    verdict: Verdict,
    name: str,
    out: Path,
    address: str | None,
    nodes: int,
    as_json: bool,
    use_wandb: bool,
    project_name: str,
    wandb_mode: Literal["online", "offline"] | None,
    **given: Any,
) -> None:
    """Run every task x algorithm x seed over one evaluator.

    Running the command again attaches to a sweep that is under way, and goes on with one that was cut off.

    \b
    kbopt sweep --tasks quick/gelu,quick/softmax --algorithms PS,best_of_n --seeds 3 --max-evals 30
    kbopt sweep status|stop|resume|results NAME
    """
    if context.invoked_subcommand:
        return
    from kbopt import sweep as sweeps

    found = parsed.find_tasks(task_names, kernelbench)
    tasks = tuple(parsed.with_workloads(task, workloads) for task in found)
    if given["start"] and len(tasks) > 1:
        raise UserError(f"--start goes with one task, and --tasks {task_names} names {len(tasks)}")
    if spend == "headroom" and (not given["max_evals"] or given["synchronous"]):
        raise UserError(
            "--spend headroom shares out evaluations as searches go on: give --max-evals N, and leave "
            "--synchronous out"
        )
    settings, backend = parsed.search_settings(given), parsed.backend_config(given)
    proposer = parsed.proposer_config(given, tasks)
    config = sweeps.SweepConfig(
        name=name,
        tasks=tasks,
        algorithms=parsed.algorithm_names(algorithms),
        seeds=parsed.seed_numbers(seeds),
        settings=replace(settings, strategies=parsed.first_strategies(given, proposer, backend)),
        protocol=parsed.at_stated_precision(parsed.eval_protocol(given), tasks),
        backend=backend,
        proposer=proposer,
        explorers=explorers,
        parallel_searches=parallel_searches,
        shares_results=share_results,
        verdict=verdict,
        spend=spend,
    )
    run_sweep(
        config,
        out / name,
        address=address,
        nodes=nodes,
        as_json=as_json,
        use_wandb=use_wandb,
        project_name=project_name,
        wandb_mode=wandb_mode,
    )


@sweep.command(short_help="Say how far each search of a sweep is.")
@click.argument("name")
@out_option
def status(name: str, out: Path) -> None:
    """Say how far each search of the sweep NAME is, from the journals."""
    from rich.console import Console

    from kbopt import sweep as sweeps
    from kbopt.cli.runs import run_rows
    from kbopt.reporting.listing import print_runs

    folder = sweep_folder(name, out)
    config = sweeps.load(folder)
    rows = run_rows([folder / run.name for run in config.runs()], when_open="open")
    print_runs(Console(), rows)
    over = sum(row.state != "open" for row in rows)
    click.echo(f"{over}/{len(rows)} searches over, {sum(row.evaluations for row in rows)} evaluations")
    if (folder / sweeps.STOP_FILE).exists():
        click.echo(f"stopped; {_how_to_resume(folder)}")


@sweep.command(short_help="Stop a sweep, and keep what was measured.")
@click.argument("name")
@out_option
def stop(name: str, out: Path) -> None:
    """Stop the sweep NAME, wherever its actors run, and keep what was measured."""
    from kbopt import sweep as sweeps

    folder = sweep_folder(name, out)
    sweeps.load(folder)
    (folder / sweeps.STOP_FILE).touch()
    click.echo(f"stopping; {_how_to_resume(folder)}")


@sweep.command(short_help="Go on with a sweep.")
@click.argument("name")
@out_option
@address_option
@nodes_option
@json_option
@shared.wandb_options
def resume(name: str, out: Path, **how: Any) -> None:
    """Go on with the sweep NAME, with the options that it was started with."""
    from kbopt import sweep as sweeps

    folder = sweep_folder(name, out)
    config = sweeps.load(folder)
    (folder / sweeps.STOP_FILE).unlink(missing_ok=True)
    run_sweep(config, folder, **how)


@sweep.command(short_help="Print a sweep's table, and write its page.")
@click.argument("name")
@out_option
@json_option
def results(name: str, out: Path, as_json: bool) -> None:
    """Print the table of the sweep NAME as far as it is, and write the best kernels and one page."""
    from kbopt import sweep as sweeps

    folder = sweep_folder(name, out)
    config = sweeps.load(folder)
    searches = sweeps.finish_all(config, folder)
    if as_json:
        seconds = max(search.summary.seconds for search in searches)
        shared.print_json(sweeps.sweep_document(config, searches, seconds))
    else:
        print_table(searches, shared=config.shares_results)
    click.echo(sweeps.write_page(config, folder), err=True)


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
    from kbopt.reporting.text import plural

    wandb_log = None
    if use_wandb and (options := WandbOptions.of(project_name, wandb_mode, shared.to_stderr)):
        wandb_log = SweepWandb(config.name, folder, options, config.backend)
    again = "it goes on without this driver" if address else _how_to_resume(folder)
    started = time.monotonic()
    status = drive(config, folder, address=address, nodes=nodes, again=again, wandb_log=wandb_log)
    seconds = time.monotonic() - started
    if status.stopped:
        click.echo(f"stopped; {_how_to_resume(folder)}", err=True)
    failures = [(search.name, search.failure) for search in status.searches if search.failure]
    for name, failure in failures:
        click.echo(f"{name}: {failure.message}", err=True)
    searches = sweeps.finish_all(config, folder)
    document = sweeps.sweep_document(config, searches, seconds)
    if as_json:
        shared.print_json(document)
    else:
        print_table(searches, shared=config.shares_results)
    kept = sum(keep_lessons(folder / run.name) for run in config.runs())
    if kept:
        click.echo(f"{plural(kept, 'lesson')} added to {config.proposer.library}", err=True)
    if wandb_log and wandb_log.failed:
        click.echo(f"Weights & Biases: {wandb_log.failed}", err=True)
    if any(failure.kind == "infra" for _, failure in failures):
        click.echo(f"What was measured is in {folder}; {_how_to_resume(folder)}", err=True)
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

    progress = Progress(config)

    def on_status(status: CoordinatorStatus, evaluator: EvaluatorStatus) -> None:
        progress(status, evaluator)
        if wandb_log:
            wandb_log(status)

    shared.to_stderr(extent(config))
    try:
        return sweeps.drive(
            config, folder, address=address, nodes=nodes, on_status=on_status, say=shared.to_stderr
        )
    except KeyboardInterrupt:
        click.echo(f"stopped; {again}. What was measured is in {folder}", err=True)
        exit_interrupted()


def _how_to_resume(folder: Path) -> str:
    return f"go on with: kbopt sweep resume {folder}"


def extent(config: SweepConfig) -> str:
    """How much the sweep is going to be, in a line."""
    sizes = {
        "task": len(config.tasks),
        "algorithm": len(config.algorithms),
        "seed": len(config.seeds),
    }
    product = " x ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in sizes.items())
    searches = math.prod(sizes.values())
    each = config.settings.budget.evaluations or config.settings.num_total_proposals
    return (
        f"{searches} search{'es' * (searches > 1)}: {product}, "
        f"{'up to' if config.spend == 'evenly' else 'on average'} {each} evaluations each, "
        f"{searches * each} in all; --max-evals makes it smaller"
    )


class Progress:
    """A line on stderr every few seconds: searches done, evaluations, busy share, dollars, time left.

    The time left is told by the pace of this session, and by how much of each search's budget is spent.
    """

    def __init__(self, config: SweepConfig) -> None:
        self._runs = {run.name: run for run in config.runs()}
        self._shared = config.shared_evaluations
        self._started = time.monotonic()
        self._said = -PROGRESS_S
        self._done_at_first: float | None = None

    def __call__(self, status: CoordinatorStatus, evaluator: EvaluatorStatus) -> None:
        from kbopt.reporting.text import duration

        elapsed_s = time.monotonic() - self._started
        if elapsed_s - self._said < PROGRESS_S and not status.finished:
            return
        self._said = elapsed_s
        over = sum(search.ended is not None or search.failure is not None for search in status.searches)
        evaluations = sum(search.progress.evaluations for search in status.searches)
        usd = sum(search.progress.usd for search in status.searches)
        busy = evaluator.device_s / evaluator.uptime_s if evaluator.uptime_s else 0.0
        left_s = self._left_s(status, evaluator, elapsed_s)
        eta = f", about {duration(left_s)} left" if left_s else ""
        click.echo(
            f"[{elapsed_s:.0f} s] {over}/{len(status.searches)} searches, {evaluations} evaluations, "
            f"evaluator busy {busy:.0%}, queue {evaluator.queue_length}, ${usd:.2f}{eta}",
            err=True,
        )

    def _left_s(
        self, status: CoordinatorStatus, evaluator: EvaluatorStatus, elapsed_s: float
    ) -> float | None:
        """Seconds to the end; None where nothing was done yet that tells the pace."""
        from kbopt.driver import snapshot
        from kbopt.reporting.terminal import done_fraction

        shared, done = self._shared, 0.0
        for search in status.searches:
            is_over = search.ended is not None or search.failure is not None
            spent = done_fraction(snapshot(self._runs[search.name], search, evaluator))
            if shared:
                spent = len(status.searches) * search.progress.evaluations / shared
                is_over = False
            done += 1.0 if is_over else spent or 0.0
        if self._done_at_first is None:
            self._done_at_first = done
        gained = done - self._done_at_first
        return elapsed_s * (len(status.searches) - done) / gained if gained > 0 else None


def print_table(searches: tuple[Finished, ...], *, shared: bool = False) -> None:
    """Speedups by task and algorithm, then each algorithm over all tasks, with the spread over seeds."""
    from rich.console import Console
    from rich.table import Column, Table

    from kbopt.reporting.comparison import compare, shown

    comparison = compare([search.summary for search in searches])
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
