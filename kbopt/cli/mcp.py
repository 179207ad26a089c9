"""`kbopt mcp`: the judge as a tool of coding agents."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from kbopt.cli import offering
from kbopt.cli.grouped import Command, option
from kbopt.cli.output import to_stderr
from kbopt.core.errors import UserError
from kbopt.core.extras import require


@click.command(cls=Command, short_help="Judge the kernels of a coding agent, as an MCP server.")
@offering.task_options
@option("--http", metavar="HOST:PORT", help="Serve many clients by streamable HTTP. Default: one, on stdio.")
@option(
    "--token-env",
    metavar="NAME",
    help="The environment variable with the bearer token. No default: --http needs it.",
)
@offering.offer_options
def mcp(http: str | None, token_env: str | None, **given: Any) -> None:
    """Serve the judge to Claude Code, Codex, OpenCode and other clients of the Model Context Protocol.

    The agent lists tasks, evaluates kernels of its own, and submits one. Each session leaves a run's folder
    that `kbopt runs`, `report`, `show` and `resume` read. docs/agents.md has the set-up of each client.

    \b
    claude mcp add kbopt -- kbopt mcp --tasks quick/gelu --max-evals 30
    kbopt mcp --backend modal --gpu L40S --minutes 60
    export KBOPT_TOKEN=$(openssl rand -hex 16)
    kbopt mcp --http 127.0.0.1:8000 --token-env KBOPT_TOKEN
    """
    require("mcp", "kbopt mcp")
    if http is None:
        if token_env is not None:
            raise UserError(f"--token-env {token_env} goes with --http HOST:PORT: give both, or neither")
        from kbopt.agents.server import serve_stdio

        serve_stdio(offering.offer(given))
        return
    address, token = offering.address(http), offering.token(http, token_env)
    from kbopt.agents.server import http_app
    from kbopt.agents.serving import serve_http

    serve_http(
        offering.offer(given),
        partial(http_app, host=address[0]),
        *address,
        token,
        lambda at: to_stderr(f"kbopt mcp: {at}/mcp"),
    )
