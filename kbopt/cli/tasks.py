"""`kbopt tasks`: what can be searched."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from kbopt.cli import options as shared


@click.command(short_help="List the tasks that can be searched.")
@shared.kernelbench_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout and nothing else.")
def tasks(kernelbench: Path | None, as_json: bool) -> None:
    """List the tasks that ship with kbopt, and with --kernelbench or KBOPT_KERNELBENCH those of a checkout.

    Any .py file in KernelBench's format is a task too. Without a checkout level1/12 names problem 12 of
    KernelBench's level 1 in the Hugging Face dataset, which is not listed here. Tasks of a family other than
    sim/... have seed kernels; those without a family need --start FILE or a language model.

    \b
    kbopt tasks
    kbopt tasks --kernelbench ~/KernelBench
    """
    from kbopt.simulated import LANDSCAPES
    from kbopt.tasks import TaskInfo, list_tasks

    simulated = [
        TaskInfo(
            name=name,
            family=landscape.task.family,
            title="A landscape with a known optimum, for --backend simulated --proposer simulated.",
            where_from="kbopt",
        )
        for name, landscape in LANDSCAPES.items()
    ]
    rows = [*list_tasks(kernelbench=kernelbench), *simulated]
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("task", "family", "what it computes", box=None)
    for row in rows:
        table.add_row(row.name, row.family, row.title)
    Console().print(table)
