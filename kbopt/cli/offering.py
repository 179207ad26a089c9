"""The options that `kbopt mcp` and `kbopt serve` share: what is offered, to whom, and where."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from kbopt.cli import parsed
from kbopt.cli.grouped import option, options
from kbopt.cli.options.backend import backend_options
from kbopt.cli.options.protocol import protocol_options
from kbopt.cli.options.search import limit_option
from kbopt.cli.options.task import kernelbench_option
from kbopt.cli.output import to_stderr
from kbopt.cli.values import Number
from kbopt.core.errors import UserError
from kbopt.core.settings import Budget
from kbopt.core.task import Task

if TYPE_CHECKING:
    from kbopt.agents.session import Offer

HTTP_FORM = "127.0.0.1:8000, [::1]:8000, or :8000 for this machine alone"

_AT_NO_COST = "--max-usd {usd:g} ends no session: --backend {backend} evaluates at no cost"

task_options = options(
    option(
        "--tasks",
        "task_names",
        help="What may be worked on: quick/gelu, quick/*, mine.py, with commas. Default: all that ship.",
    ),
    kernelbench_option,
)

offer_options = options(
    option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
        default=Path("runs"),
        help="Where each session leaves a run's folder for each of its tasks.",
    ),
    limit_option("--max-evals", click.IntRange(1), "Evaluations that one session may use"),
    limit_option("--max-usd", Number(0), "Dollars that one session may spend on rented containers"),
    limit_option(
        "--minutes", Number(0, min_open=True), "Minutes in which one session may ask for evaluations"
    ),
    backend_options,
    protocol_options,
)


def offer(given: dict[str, Any]) -> Offer:
    """What the options offer, from a backend that is ready. Raises `UserError`."""
    from kbopt.agents.session import Offer
    from kbopt.compose.backends import prepare_backend, rent_text
    from kbopt.compose.checks import check_device, check_simulated

    protocol = parsed.eval_protocol(given)
    backend = parsed.backend_config(given)
    if backend.name == "local":
        check_device(backend.device)
    tasks = _tasks(given["task_names"], given["kernelbench"])
    named = given["task_names"] is not None
    for load in list(tasks.values()) if named else list(tasks.values())[:1]:
        check_simulated(load(), backend.name)
    prepare_backend(backend, to_stderr)
    if given["max_usd"] is not None:
        to_stderr(rent_text(backend) or _AT_NO_COST.format(usd=given["max_usd"], backend=backend.name))
    source = click.get_current_context().get_parameter_source("precision")
    return Offer(
        tasks=tasks,
        backend=backend,
        protocol=protocol,
        budget=Budget(evaluations=given["max_evals"], usd=given["max_usd"], minutes=given["minutes"]),
        out=given["out"],
        states_precision=source is not ParameterSource.DEFAULT,
    )


def _tasks(names: str | None, kernelbench: Path | None) -> dict[str, Callable[[], Task]]:
    """Loads each by its name. An agent chooses among these alone: a path of its own would be trusted code."""
    if names is not None:
        return {task.name: partial(_same, task) for task in parsed.find_tasks(names, kernelbench)}
    from kbopt.tasks import list_tasks, load_task

    return {
        info.name: partial(load_task, info.name, kernelbench=kernelbench)
        for info in list_tasks(kernelbench=kernelbench)
    }


def _same(task: Task) -> Task:
    return task


def address(http: str) -> tuple[str, int]:
    """The host and port of HOST:PORT. Raises `UserError` for anything else."""
    host, colon, port = http.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise UserError(f"--http {http!r} is no address. Give HOST:PORT, such as {HTTP_FORM}.")
    return host.strip("[]") or "127.0.0.1", int(port)


def token(http: str, name: str | None) -> str:
    """The token. Raises `UserError` where HTTP would be served without one."""
    if name is None:
        raise UserError(
            f"--http {http} is not served without a token. Set one, as in export KBOPT_TOKEN=$(openssl rand "
            "-hex 16), and give --token-env KBOPT_TOKEN."
        )
    if not os.environ.get(name):
        raise UserError(f"--token-env {name}: it is not set. Set it: export {name}=$(openssl rand -hex 16)")
    return os.environ[name]
