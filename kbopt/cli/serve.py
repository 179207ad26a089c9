"""`kbopt serve`: the judge over HTTP, for optimizers in any language."""

from __future__ import annotations

from typing import Any

import click

from kbopt.cli import offering
from kbopt.cli.grouped import Command, option
from kbopt.cli.output import to_stderr


@click.command(cls=Command, short_help="Judge the kernels of other optimizers, over HTTP and JSON.")
@offering.task_options
@option("--http", metavar="HOST:PORT", default="127.0.0.1:8000", help="The address to serve at.")
@option(
    "--token-env",
    metavar="NAME",
    help="The environment variable with the bearer token. No default: it is needed.",
)
@offering.offer_options
def serve(http: str, token_env: str | None, **given: Any) -> None:
    """Serve the judge to optimizers in other languages: JSON in and out, with a bearer token.

    A client evaluates kernels, one or many in a call, asks what limits one, and submits one. Each session
    leaves a run's folder that `kbopt runs`, `report`, `show` and `resume` read. docs/agents.md has an
    example with curl, and GET /v1/openapi.json describes every call.

    \b
    export KBOPT_TOKEN=$(openssl rand -hex 16)
    kbopt serve --tasks quick/gelu --token-env KBOPT_TOKEN --max-evals 30
    kbopt serve --http 127.0.0.1:9000 --token-env KBOPT_TOKEN --backend modal --gpu L40S
    """
    address, token = offering.address(http), offering.token(http, token_env)
    from kbopt.agents.http import http_app
    from kbopt.agents.serving import serve_http

    serve_http(
        offering.offer(given),
        http_app,
        *address,
        token,
        lambda at: to_stderr(f"kbopt serve: {at}/v1"),
    )
