"""`kbopt mcp`: the judge as a tool of coding agents."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from kbopt.cli import options as shared
from kbopt.cli.grouped import BUDGET, Command
from kbopt.cli.options import option
from kbopt.core.errors import UserError
from kbopt.core.extras import require
from kbopt.core.settings import Budget
from kbopt.core.types import Task

HTTP_FORM = "127.0.0.1:8000, [::1]:8000, or :8000 for this machine alone"


@click.command(cls=Command, short_help="Judge the kernels of a coding agent, as an MCP server.")
@option(
    "--tasks",
    "task_names",
    help="What agents may work on: quick/gelu, quick/*, mine.py, with commas. Default: all that ship.",
)
@shared.kernelbench_option
@option("--http", metavar="HOST:PORT", help="Serve many clients by streamable HTTP. Default: one, on stdio.")
@option(
    "--token-env",
    metavar="NAME",
    help="The environment variable with the bearer token. No default: --http needs it.",
)
@option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    default=Path("runs"),
    help="Where each session leaves a run's folder for each of its tasks.",
)
@option(
    "--max-evals",
    group=BUDGET,
    type=click.IntRange(1),
    help="Evaluations that one session may use. Default: no limit.",
)
@option(
    "--minutes",
    group=BUDGET,
    type=click.FloatRange(0, min_open=True),
    help="Minutes in which one session may ask for evaluations. Default: no limit.",
)
@shared.backend_options
@shared.protocol_options
@click.pass_context
def mcp(
    ctx: click.Context,
    /,
    task_names: str | None,
    kernelbench: Path | None,
    http: str | None,
    token_env: str | None,
    out: Path,
    max_evals: int | None,
    minutes: float | None,
    **given: Any,
) -> None:
    """Serve the judge to Claude Code, Codex, OpenCode and other clients of the Model Context Protocol.

    The agent lists tasks, evaluates kernels of its own, and submits one. Each session leaves a run's folder
    that `kbopt runs`, `report`, `show` and `resume` read. docs/agents.md has the set-up of each client.

    \b
    claude mcp add kbopt -- kbopt mcp --tasks quick/gelu --max-evals 30
    kbopt mcp --backend modal --gpu L40S --minutes 60
    export KBOPT_MCP_TOKEN=$(openssl rand -hex 16)
    kbopt mcp --http 127.0.0.1:8000 --token-env KBOPT_MCP_TOKEN
    """
    require("mcp", "kbopt mcp")
    address = _address(http) if http is not None else None
    token = _token(http, token_env)
    protocol = shared.eval_protocol(given)
    backend = shared.backend_config(given)
    from kbopt.agents.serving import serve_http, serve_stdio
    from kbopt.agents.session import Offer
    from kbopt.compose import check_device, prepare_backend

    if backend.name == "local":
        check_device(backend.device)
    prepare_backend(backend, shared.to_stderr)
    offer = Offer(
        tasks=_tasks(task_names, kernelbench),
        backend=backend,
        protocol=protocol,
        budget=Budget(evaluations=max_evals, minutes=minutes),
        out=out,
        states_precision=ctx.get_parameter_source("precision") is not ParameterSource.DEFAULT,
    )
    if address is None:
        serve_stdio(offer)
    else:
        serve_http(offer, *address, token, shared.to_stderr)


def _tasks(names: str | None, kernelbench: Path | None) -> dict[str, Callable[[], Task]]:
    """Loads each by its name. An agent chooses among these alone: a path of its own would be trusted code."""
    if names is not None:
        return {task.name: partial(_same, task) for task in shared.find_tasks(names, kernelbench)}
    from kbopt.tasks import list_tasks, load_task

    return {
        info.name: partial(load_task, info.name, kernelbench=kernelbench)
        for info in list_tasks(kernelbench=kernelbench)
    }


def _same(task: Task) -> Task:
    return task


def _address(http: str) -> tuple[str, int]:
    host, colon, port = http.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise UserError(f"--http {http!r} is no address. Give HOST:PORT, such as {HTTP_FORM}.")
    return host.strip("[]") or "127.0.0.1", int(port)


def _token(http: str | None, name: str | None) -> str:
    """The token; empty on stdio. Raises `UserError` where HTTP would be served without one."""
    if http is None:
        if name is not None:
            raise UserError(f"--token-env {name} goes with --http HOST:PORT: give both, or neither")
        return ""
    if name is None:
        raise UserError(
            f"--http {http} is not served without a token. Set one, as in export KBOPT_MCP_TOKEN=$(openssl "
            "rand -hex 16), and give --token-env KBOPT_MCP_TOKEN."
        )
    if not os.environ.get(name):
        raise UserError(f"--token-env {name}: it is not set. Set it: export {name}=$(openssl rand -hex 16)")
    return os.environ[name]
