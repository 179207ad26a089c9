"""How a tool of an MCP server waits and fails: progress, and errors that an agent can act on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

from kbopt.agents.answers import INFRA_REMEDY, proposer_name
from kbopt.core.errors import InfraError, UserError

T = TypeVar("T")

PROGRESS_S = 2.0
"""Seconds between two reports of progress: a person watches, and some clients give up a silent call."""


def proposer_of(ctx: Context[Any, Any]) -> str:
    """Who wrote the kernel, as the client calls itself."""
    params = ctx.session.client_params
    return proposer_name(params.client_info.name if params else "")


async def while_waiting(ctx: Context[Any, Any], work: Awaitable[T], waits: Callable[[], Awaitable[str]]) -> T:
    """What `work` returns; tells the client every `PROGRESS_S` how long it has waited, and for what."""
    task = asyncio.ensure_future(work)
    started = time.monotonic()
    try:
        while not (await asyncio.wait([task], timeout=PROGRESS_S))[0]:
            waited_s = time.monotonic() - started
            await ctx.report_progress(waited_s, message=f"{waited_s:.0f} s: {await waits()}")
        with told():
            return await task
    finally:
        task.cancel()  # does nothing to one that is done


@contextmanager
def told() -> Iterator[None]:
    """Turns what a user or a machine did wrong into what the agent reads."""
    try:
        yield
    except UserError as error:
        raise ToolError(str(error)) from error
    except InfraError as error:
        raise ToolError(INFRA_REMEDY.format(error=error)) from error
