"""`kbopt bench kernelbench`: from nothing to a table of what an optimizer finds on KernelBench."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from kbopt.cli import INFRA_ERROR, exit_interrupted, parsed
from kbopt.cli.driving import drive
from kbopt.cli.grouped import BUDGET, Command, option
from kbopt.cli.options.backend import backend_options
from kbopt.cli.options.proposer import proposer_options
from kbopt.cli.options.protocol import protocol_options
from kbopt.cli.options.search import SETTINGS, limit_option
from kbopt.cli.options.sweep import address_option, many_options, nodes_option, out_option
from kbopt.cli.options.task import kernelbench_option
from kbopt.cli.output import json_option, print_json, to_stderr
from kbopt.cli.values import FolderName, Name, Number
from kbopt.core.errors import UserError
from kbopt.core.settings import Algorithm, Budget, SearchSettings
from kbopt.core.text import plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kbopt.bench import BenchConfig, Optimizer
    from kbopt.cluster.messages import Failure
    from kbopt.reporting.scoreboard import Row


class _Optimizer(Name):
    """The name of an optimizer; `kbopt.bench.Optimizer` has the same, and is imported when it is needed."""

    def __init__(self) -> None:
        self.name, self.allowed = "optimizer", ("kbopt", "best_of_n", "gepa", "openevolve")


@click.command(cls=Command, short_help="From nothing to a table of what is found on KernelBench.")
@option("--levels", default="1,2,3", help="Which of KernelBench's levels.")
@option(
    "--subset",
    metavar="representative|all|NAMES",
    default="representative",
    help="KernelBench's own representative problems (35 in levels 1 to 3), all of the levels, or names and "
    "patterns: level1/1..20,level2/33.",
)
@kernelbench_option
@option(
    "--optimizer",
    type=_Optimizer(),
    default="kbopt",
    help="Who searches: kbopt by --algorithm, independent proposals, or another project's optimizer, by the "
    "same model and judge.",
)
@option(
    "--algorithm",
    type=Name("algorithm", Algorithm),
    default=SETTINGS.algorithm,
    help="Of --optimizer kbopt.",
)
@option("--seeds", default="3", help="How many (5), or which (0..4 or 3,7).")
@option("--max-evals", group=BUDGET, type=click.IntRange(1), default=30, help="For each task and seed.")
@limit_option(
    "--max-usd",
    Number(0, min_open=True),
    "Dollars for models and rented containers in all, of which each task and seed may spend an equal part",
)
@limit_option("--max-tokens", click.IntRange(1), "Tokens for each task and seed")
@limit_option("--max-minutes", Number(0, min_open=True), "Minutes for each task and seed")
@proposer_options
@backend_options
@protocol_options
@many_options
@option("--name", type=FolderName(), default="kernelbench", help="Its name; its folder is OUT/NAME.")
@out_option
@address_option
@nodes_option
@json_option
@click.pass_context
def kernelbench(
    ctx: click.Context,
    /,
    levels: str,
    subset: str,
    kernelbench: Path | None,
    optimizer: Optimizer,
    algorithm: Algorithm,
    seeds: str,
    max_evals: int,
    max_usd: float | None,
    max_tokens: int | None,
    max_minutes: float | None,
    explorers: int,
    parallel_searches: int,
    name: str,
    out: Path,
    address: str | None,
    nodes: int,
    as_json: bool,
    **given: Any,
) -> None:
    """Run an optimizer over KernelBench, and print the table of what it found.

    fast_0.5, fast_1, fast_1.2, fast_2 and the geometric mean over eager PyTorch, torch.compile and
    max-autotune, by the strict verdict and by KernelBench's own, with 95 % intervals over the seeds; the
    share of the roofline; and what a task cost in dollars, tokens and minutes. OUT/NAME has the
    table as text and as a page, a line for each search, and a page for each task. Without --model kbopt's own
    seed kernels are varied. Running the command again goes on.

    \b
    kbopt bench kernelbench --kernelbench experiments/kernelbench --device cpu --seeds 1 --max-evals 5
    kbopt bench kernelbench --backend modal --gpu H100 --model openai/gpt-5 --max-usd 50
    kbopt bench kernelbench --levels 1 --subset all --kernelbench ~/KernelBench --device cuda
    kbopt bench kernelbench --optimizer gepa --model openai/gpt-5 --name gepa
    """
    from kbopt import bench, sweep
    from kbopt.tasks.subsets import chosen, level_numbers

    wanted = level_numbers(levels)
    tasks = parsed.find_tasks(",".join(chosen(subset, wanted, kernelbench)), kernelbench)
    if given["baseline"] != "eager":
        raise UserError(
            f"the table has every baseline: leave --baseline {given['baseline']} out of `bench kernelbench`"
        )
    if ctx.get_parameter_source("proposer") is not ParameterSource.COMMANDLINE:
        given["proposer"] = "llm" if given["models"] else given["proposer"]
    if optimizer in bench.EXTERNAL and given["proposer"] != "llm":
        raise UserError(f"--optimizer {optimizer} needs --model, e.g. --model openai/gpt-5")
    searches = sweep.SweepConfig(
        name=name,
        tasks=tasks,
        algorithms=("best_of_n" if optimizer != "kbopt" else algorithm,),
        seeds=parsed.seed_numbers(seeds),
        settings=SearchSettings(num_steps=max_evals, refinement=given["proposer"] == "llm+tunables"),
        protocol=parsed.at_stated_precision(parsed.eval_protocol(given), tasks),
        backend=parsed.backend_config(given),
        proposer=parsed.proposer_config(given, tasks),
        explorers=explorers,
        parallel_searches=parallel_searches,
    )
    without = bench.unseeded(tasks, searches)
    searches = replace(searches, tasks=tuple(task for task in tasks if task not in without))
    config = bench.BenchConfig(
        optimizer=optimizer,
        subset=subset,
        levels=wanted,
        searches=searches,
        unseeded=without,
        usd=max_usd,
        versions=bench.versions(),
    )
    budget = Budget(
        evaluations=max_evals,
        usd=bench.divided(max_usd, config.num_searches),
        tokens=max_tokens,
        minutes=max_minutes,
    )
    config = replace(config, searches=replace(searches, settings=replace(searches.settings, budget=budget)))
    folder = out / name
    failures = _run(config, folder, address=address, nodes=nodes)
    rows = bench.collect(config, folder, failures)
    files = bench.write(config, folder, rows)
    _say(config, rows, as_json=as_json)
    click.echo("\n".join(map(str, files)), err=True)
    _end(config, rows, failures)


def _end(config: BenchConfig, rows: Sequence[Row], failures: Mapping[str, Failure]) -> None:
    """Say what is not finished and why, and exit with the code that tells it."""
    unfinished = {(row.task, row.seed) for row in rows if row.fate == "unfinished"}
    if not unfinished:
        return
    named = {run.name: (run.task.name, run.settings.seed) for run in config.searches.runs()}
    reasons = {name: failure for name, failure in failures.items() if named[name] in unfinished}
    for name, failure in reasons.items():
        to_stderr(f"{name}: {failure.message}")
    if any(failure.kind == "user" for failure in reasons.values()):
        raise UserError(f"{len(unfinished)} of {config.num_searches} searches could not run")
    to_stderr(
        f"{plural(len(unfinished), 'search is', 'searches are')} not finished; the same command goes on"
    )
    sys.exit(INFRA_ERROR)


def _run(config: BenchConfig, folder: Path, *, address: str | None, nodes: int) -> Mapping[str, Failure]:
    """Run what is still to be run. Returns what kept a search from its end, by the search's name."""
    from kbopt import bench
    from kbopt.compose.checks import check
    from kbopt.compose.searches import preflight

    first = next(config.searches.runs(), None)
    if not config.has_model:
        to_stderr(bench.without_model(config))
    if first is None:
        bench.prepare(config, folder)
        return {}
    each = config.searches.settings.budget.usd
    share = f"; of ${config.usd:.2f} each may spend ${each:.4f}" if config.usd and each else ""
    to_stderr(f"{plural(config.num_searches, 'search', 'searches')}, each {preflight(first)}{share}")
    if not (folder / bench.DESCRIPTION).exists():  # What is refused here leaves the name free.
        for run in config.searches.runs():
            check(run, on_this_machine=address is None)
    bench.prepare(config, folder)
    refused = bench.refused(config, folder)
    left = [run for run in config.searches.runs() if not bench.has_ended(folder / run.name)]
    if all(run.name in refused for run in left):
        to_stderr("every search is over: nothing is run again")
        return refused
    if config.optimizer in bench.EXTERNAL:
        from kbopt.adapters.contest import compete

        try:
            return compete(config.optimizer, config.searches, folder, to_stderr)
        except KeyboardInterrupt:
            to_stderr(f"stopped; the same command goes on. What was measured is in {folder}")
            exit_interrupted()
    status = drive(config.searches, folder, address=address, nodes=nodes, again="the same command goes on")
    return {search.name: search.failure for search in status.searches if search.failure}


def _say(config: BenchConfig, rows: tuple[Row, ...], *, as_json: bool) -> None:
    from rich.console import Console

    from kbopt.bench import document
    from kbopt.reporting.listing import print_cells
    from kbopt.reporting.scoreboard import boards, extent, spent, table

    tables = boards(rows)
    if as_json:
        print_json(document(config, tables))
        return
    for one in tables:
        click.echo(f"\n{extent(one)}\n")
        print_cells(Console(), table(one))
        click.echo(f"\n{spent(one)}")
