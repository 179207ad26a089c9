"""`kbopt bench`: algorithms against each other at equal budgets, and the benchmark on KernelBench."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kbopt.cli import parsed
from kbopt.cli.driving import run_sweep
from kbopt.cli.grouped import BUDGET, Group, option
from kbopt.cli.kernelbench import kernelbench as on_kernelbench
from kbopt.cli.options.backend import backend_options
from kbopt.cli.options.proposer import proposer_options
from kbopt.cli.options.protocol import protocol_options
from kbopt.cli.options.sweep import address_option, many_options, nodes_option, out_option
from kbopt.cli.options.task import kernelbench_option
from kbopt.cli.output import json_option
from kbopt.cli.values import FolderName
from kbopt.core.errors import UserError

ALGORITHMS = "PS,PS_Summarizer,PS_epsNet,PS_epsNet_Summarizer,best_of_n,random"


@click.group(
    cls=Group,
    invoke_without_command=True,
    short_help="Compare algorithms at equal numbers of evaluations; KernelBench.",
)
@option(
    "--tasks",
    "task_names",
    default="sim/smooth,sim/rugged,sim/deceptive,sim/faulty",
    help="Tasks, with patterns: matmul, quick/*, level1/1..5, sim/smooth.",
)
@option("--algorithms", default=ALGORITHMS, help="Algorithms, with commas between them.")
@option("--seeds", default="0..4", help="How many (5), or which (0..4 or 3,7).")
@option("--max-evals", group=BUDGET, type=click.IntRange(1), default=50, help="For each search.")
@kernelbench_option
@proposer_options
@backend_options
@protocol_options
@many_options
@option("--name", type=FolderName(), default="bench", help="Its name; its folder is OUT/NAME.")
@out_option
@address_option
@nodes_option
@json_option
@click.pass_context
def bench(
    context: click.Context,
    /,
    task_names: str,
    algorithms: str,
    seeds: str,
    max_evals: int,
    kernelbench: Path | None,
    explorers: int,
    parallel_searches: int,
    name: str,
    out: Path,
    address: str | None,
    nodes: int,
    as_json: bool,
    **given: Any,
) -> None:
    """Compare algorithms at equal numbers of evaluations, over several seeds.

    Without options on simulated landscapes, whose optima are known: no key, no GPU. Each search measures for
    itself. Leaves results.json; results.jsonl, a line for each search; table.md; and report.html with the
    curves: fast_p, and best so far over evaluations, minutes and dollars.

    `kbopt bench kernelbench` is a benchmark of one optimizer instead, with options of its own.

    \b
    kbopt bench --algorithms PS,best_of_n,random --seeds 0..4
    kbopt bench --tasks quick/gelu,quick/softmax --proposer tunables --max-evals 20
    kbopt bench kernelbench --help
    """
    if context.invoked_subcommand:
        return
    from kbopt import sweep as sweeps
    from kbopt.core.settings import Budget, SearchSettings

    tasks = parsed.find_tasks(task_names, kernelbench)
    simulated = {task.family == "simulated" for task in tasks}
    if len(simulated) > 1:
        raise UserError(
            f"--tasks {task_names}: simulated tasks (sim/...) and real ones need runs of their own"
        )
    if simulated == {True}:
        given |= {"backend": "simulated", "proposer": "simulated"}
    backend, proposer = parsed.backend_config(given), parsed.proposer_config(given, tasks)
    settings = SearchSettings(
        num_steps=max_evals,
        budget=Budget(evaluations=max_evals),
        strategies=parsed.first_strategies(given, proposer, backend),
    )
    config = sweeps.SweepConfig(
        name=name,
        tasks=tasks,
        algorithms=parsed.algorithm_names(algorithms),
        seeds=parsed.seed_numbers(seeds),
        settings=settings,
        protocol=parsed.at_stated_precision(parsed.eval_protocol(given), tasks),
        backend=backend,
        proposer=proposer,
        explorers=explorers,
        parallel_searches=parallel_searches,
    )
    folder = out / name
    document = run_sweep(config, folder, address=address, nodes=nodes, as_json=as_json)
    files = (*sweeps.write_results(config, folder, document), sweeps.write_page(config, folder))
    click.echo("\n".join(map(str, files)), err=True)


bench.add_command(on_kernelbench)
