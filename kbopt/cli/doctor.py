"""`kbopt doctor`: is everything set up, and if not, what to do."""

from __future__ import annotations

import json
import sys
import textwrap
from dataclasses import asdict
from typing import Any

import click

from kbopt.cli import USER_ERROR, parsed
from kbopt.cli.grouped import Command, option
from kbopt.cli.options.backend import backend_options
from kbopt.cli.output import json_option

STEPS = ("load a task", "load a kernel", "open the backend", "3 evaluations", "equal code")


@click.command(cls=Command, short_help="Check the set-up, and say what to do.")
@backend_options
@option("--task", help="Default: quick/gelu on a CPU, matmul/9 on a GPU.")
@option("--verbose", is_flag=True, help="After each step all that is known of it: logs, times, tracebacks.")
@json_option
def doctor(task: str | None, verbose: bool, as_json: bool, **given: Any) -> None:
    """Check the set-up: load a task, load a kernel, open the backend, judge it three times, and equal code.

    Without --backend also what else this machine offers: compilers, torch, Ray, W&B, model keys.

    \b
    kbopt doctor
    kbopt doctor --backend modal --gpu L40S
    """
    from kbopt import doctor as examination
    from kbopt.config import device_kind

    config = parsed.backend_config(given)
    name = task or ("matmul/9" if device_kind(config) == "cuda" else "quick/gelu")
    steps: list[examination.Step] = []
    cold_starts = 0

    def report(step: examination.Step, label: str) -> None:
        steps.append(step)
        if not as_json:
            mark = "ok  " if step.ok else "--  " if step.optional else "FAIL"
            click.echo(f"{mark} {label}: {step.detail}")
            if step.remedy:
                click.echo(f"       {step.remedy}")
            if verbose and step.log:
                click.echo(textwrap.indent(step.log.rstrip(), "       "))

    number = 0
    for found in examination.run(config, name, lambda line: click.echo(f"     {line}", err=True)):
        if isinstance(found, examination.Examined):
            cold_starts = found.cold_starts
            continue
        number += 1
        label = STEPS[min(number, len(STEPS)) - 1] if found.name == "stopped" else found.name
        report(examination.Step(**{**asdict(found), "name": label}), f"{number}. {label}")
    if config.name == "local":
        for step in examination.examine_machine():
            report(step, step.name)
    ok = all(step.ok or step.optional for step in steps)
    if as_json:
        rows = [{key: asdict(step)[key] for key in ("name", "ok", "detail", "remedy")} for step in steps]
        click.echo(json.dumps({"ok": ok, "steps": rows, "cold_starts": cold_starts}))
    if not ok:
        sys.exit(USER_ERROR)
