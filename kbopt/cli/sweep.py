"""`kbopt sweep`: many searches over one evaluator, and what became of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from kbopt.cli import parsed
from kbopt.cli.driving import how_to_resume, run_sweep
from kbopt.cli.grouped import BUDGET, Group, Grouped, option, options
from kbopt.cli.options.backend import backend_options
from kbopt.cli.options.proposer import proposer_options
from kbopt.cli.options.protocol import protocol_options
from kbopt.cli.options.search import (
    budget_options,
    each_search_options,
    raise_options,
    search_verdict_option,
    start_option,
)
from kbopt.cli.options.sweep import address_option, many_options, nodes_option, out_option
from kbopt.cli.options.task import kernelbench_option, workloads_option
from kbopt.cli.options.wandb import wandb_options
from kbopt.cli.output import json_option, print_json
from kbopt.cli.values import FolderName, Name, sweep_folder
from kbopt.core.errors import UserError
from kbopt.core.events import Raised
from kbopt.core.raising import LIMITS
from kbopt.core.spending import Spend
from kbopt.core.text import plural

if TYPE_CHECKING:
    from kbopt.core.protocol import Verdict


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
@kernelbench_option
@workloads_option
@start_option
@options(*each_search_options)
@budget_options
@proposer_options
@backend_options
@protocol_options
@many_options
@option(
    "--share-results", is_flag=True, help="Measure a source once for all algorithms and seeds, not for each."
)
@option(
    "--spend",
    group=BUDGET,
    type=Name("way to spend", Spend),
    default="evenly",
    help="Give each search --max-evals evaluations and --max-usd dollars, or all of them as many together "
    "and the later ones where most is expected of them (headroom).",
)
@search_verdict_option
@option("--name", type=FolderName(), default="sweep", help="Its name; its folder is OUT/NAME.")
@out_option
@address_option
@nodes_option
@json_option
@wandb_options
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
    Each search has a budget of its own: --max-usd 2 with ten searches is 20 dollars in all.

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
    is_limited = given["max_evals"] is not None or given["max_usd"] is not None
    if spend == "headroom" and (not is_limited or given["synchronous"]):
        raise UserError(
            "--spend headroom shares out evaluations and dollars as searches go on: give --max-evals N, "
            "--max-usd D, or both, and leave --synchronous out"
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
    evaluations = plural(sum(row.evaluations for row in rows), "evaluation")
    click.echo(f"{over}/{plural(len(rows), 'search', 'searches')} over, {evaluations}")
    if (folder / sweeps.STOP_FILE).exists():
        click.echo(f"stopped; {how_to_resume(folder)}")


@sweep.command(short_help="Stop a sweep, and keep what was measured.")
@click.argument("name")
@out_option
def stop(name: str, out: Path) -> None:
    """Stop the sweep NAME, wherever its actors run, and keep what was measured."""
    from kbopt import sweep as sweeps

    folder = sweep_folder(name, out)
    sweeps.load(folder)
    (folder / sweeps.STOP_FILE).touch()
    click.echo(f"stopping; {how_to_resume(folder)}")


@sweep.command(cls=Grouped, short_help="Go on with a sweep, also with a larger budget.")
@click.argument("name")
@raise_options
@out_option
@address_option
@nodes_option
@json_option
@wandb_options
def resume(name: str, out: Path, **given: Any) -> None:
    """Go on with the sweep NAME, with the options that it was started with.

    A limit that is given holds for each search, as in `kbopt sweep`, and is one in all. Searches that used
    the former one up go on from where they ended.
    """
    from kbopt import sweep as sweeps

    folder = sweep_folder(name, out)
    config = sweeps.load(folder)
    if (wanted := Raised(**{limit.field: given.pop(limit.field) for limit in LIMITS})) != Raised():
        from kbopt.raising import raise_sweep

        click.echo(f"raised: {raise_sweep(config, folder, wanted)}", err=True)
    (folder / sweeps.STOP_FILE).unlink(missing_ok=True)
    run_sweep(config, folder, **given)


@sweep.command(short_help="Print a sweep's table, and write its page.")
@click.argument("name")
@out_option
@json_option
def results(name: str, out: Path, as_json: bool) -> None:
    """Print the table of the sweep NAME as far as it is, and write the best kernels and one page."""
    from kbopt import sweep as sweeps
    from kbopt.reporting.sweep_table import print_table

    folder = sweep_folder(name, out)
    config = sweeps.load(folder)
    searches = sweeps.finish_all(config, folder)
    if as_json:
        seconds = max(search.summary.seconds for search in searches)
        print_json(sweeps.sweep_document(config, searches, seconds))
    else:
        print_table([search.summary for search in searches], shared=config.shares_results)
    click.echo(sweeps.write_page(config, folder), err=True)
