"""`kbopt tasks`: what can be searched, and which tasks of a KernelBench checkout can be scored."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from kbopt.cli.grouped import Command, option
from kbopt.cli.options.backend import device_option
from kbopt.cli.options.protocol import arithmetic_option, backward_option, eval_mode_option, precision_option
from kbopt.cli.options.task import kernelbench_option
from kbopt.cli.values import OutFile
from kbopt.core.errors import UserError
from kbopt.core.protocol import EvalProtocol

if TYPE_CHECKING:
    from kbopt.tasks import TaskInfo


@click.command(cls=Command, short_help="List the tasks that can be searched, or admit a checkout's.")
@click.argument("path", required=False)
@kernelbench_option
@option(
    "--json", "as_json", is_flag=True, help="JSON on stdout and nothing else; with --admit a line a task."
)
@option("--admit", is_flag=True, help="Say of each task of the checkout whether it can be scored here.")
@option("--levels", default="1,2,3", help="With --admit: which of KernelBench's levels.")
@option(
    "--out",
    type=OutFile(),
    help="With --admit: append the JSON lines to this file; what it holds already is not done again. "
    "Default: no file.",
)
@device_option
@precision_option
@arithmetic_option
@eval_mode_option
@backward_option
@click.pass_context
def tasks(
    ctx: click.Context,
    /,
    path: str | None,
    kernelbench: Path | None,
    as_json: bool,
    admit: bool,
    levels: str,
    out: Path | None,
    device: str,
    **given: Any,
) -> None:
    """List the tasks that ship with kbopt, and with --kernelbench or KBOPT_KERNELBENCH those of a checkout.

    With PATH, a folder of SOL-ExecBench, FlashInfer-Bench, KernelBench-Hard or GPU MODE, list the tasks that
    are there instead, one for each workload.

    Any .py file in KernelBench's format is a task too. Without a checkout level1/12 names problem 12 of
    KernelBench's level 1 in the Hugging Face dataset, which is not listed here. Tasks of a family other than
    sim/... have seed kernels; those without a family need --start FILE or a language model.

    With --admit each task of the checkout is admitted on this machine's device and gets a line: scorable,
    with the times and memory that this takes, or refused, and why. It exits with 3 where a machine failed.

    \b
    kbopt tasks
    kbopt tasks --kernelbench ~/KernelBench
    kbopt tasks problems/rmsnorm
    kbopt tasks --kernelbench ~/KernelBench --admit --levels 1,2 --out admitted.jsonl
    """
    if admit:
        if path is not None:
            raise UserError(
                f"--admit goes through a checkout: leave out {path}, or give `kbopt tasks {path}` alone"
            )
        from kbopt.cli.admit import admit as admit_problems
        from kbopt.cli.admit import problems_of

        code = admit_problems(
            problems_of(kernelbench, levels),
            kernelbench,
            device=device,
            protocol=replace(EvalProtocol(), **given),
            out=out,
            as_json=as_json,
        )
        sys.exit(code)
    for name in ("levels", "out", "device", *given):
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UserError(f"--{name.replace('_', '-')} goes with --admit")
    from kbopt.tasks import list_formats

    rows = _all(kernelbench) if path is None else list_formats(path)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows]))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    table = Table(Column("task", overflow="fold"), "family", "what it computes", box=None)
    for row in rows:
        table.add_row(*map(escape, (row.name, row.family, row.title)))
    Console().print(table)


def _all(kernelbench: Path | None) -> tuple[TaskInfo, ...]:
    """What ships with kbopt, the checkout's problems, and the simulated landscapes."""
    from kbopt.simulated import LANDSCAPES
    from kbopt.tasks import TaskInfo, list_tasks

    simulated = (
        TaskInfo(
            name=name,
            family=landscape.task.family,
            title="A landscape with a known optimum, for --backend simulated --proposer simulated.",
            where_from="kbopt",
        )
        for name, landscape in LANDSCAPES.items()
    )
    return (*list_tasks(kernelbench=kernelbench), *simulated)
