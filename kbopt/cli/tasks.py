"""`kbopt tasks`: what can be searched."""

from __future__ import annotations

import json
from dataclasses import asdict

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout and nothing else.")
def tasks(as_json: bool) -> None:
    """List the tasks that ship with kbopt.

    Any .py file in KernelBench's format is a task too, and level1/12 names problem 12 of KernelBench's
    level 1, from a checkout (--kernelbench or KBOPT_KERNELBENCH) or the Hugging Face dataset.
    """
    from kbopt.tasks import list_tasks

    rows = list_tasks()
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("task", "family", "what it computes", box=None)
    for row in rows:
        table.add_row(row.name, row.family, row.title)
    Console().print(table)
