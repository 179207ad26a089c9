"""How a tool of an MCP server waits and fails: progress, and errors that an agent can act on.

Every line is answered, also one that is no message: a client that wrote it waits for an answer.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import ErrorData, JSONRPCError
from pydantic import ValidationError

from kbopt import __version__
from kbopt.agents.answers import INFRA_REMEDY, proposer_name, what_is_wrong
from kbopt.core.errors import InfraError, UserError, unknown_name

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


class ToolServer(MCPServer[Any]):
    """The MCP server of kbopt's tools. An argument that a tool does not take is refused: `submit` with a
    misspelt one would hand in the best kernel for good.
    """

    def __init__(self, instructions: str) -> None:
        super().__init__("kbopt", version=__version__, instructions=instructions, log_level="WARNING")

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        tools = {tool.name: tool.input_schema.get("properties", {}) for tool in await self.list_tools()}
        if name not in tools:
            raise ToolError(str(unknown_name("tool", name[:100], tools)))
        unknown = sorted(set(arguments).difference(tools[name]))
        if unknown:
            allowed = tools[name] or ("none",)
            raise ToolError(str(unknown_name(f"argument of {name}", unknown[0][:100], allowed)))
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            wrong = what_is_wrong(error.__cause__, "its arguments")
            raise ToolError(f"{name} was not called: {wrong}. It takes {', '.join(tools[name])}.") from None

    async def run_stdio_async(self) -> None:
        """Serve one client on stdin and stdout until it closes stdin."""
        server = self._lowlevel_server
        async with stdio_server() as (lines, answers):
            passed, messages = anyio.create_memory_object_stream[SessionMessage | Exception]()

            async def read() -> None:
                async with passed:
                    async for line in lines:
                        await _pass_on(line, passed, answers)

            async with anyio.create_task_group() as group:
                group.start_soon(read)
                await server.run(messages, answers, server.create_initialization_options())
                group.cancel_scope.cancel()


async def _pass_on(
    line: SessionMessage | Exception, passed: MemoryObjectSendStream[SessionMessage | Exception], answers: Any
) -> None:
    """Answer a line that is no message, and pass on one that is."""
    if not isinstance(line, ValidationError):
        await passed.send(line)
        return
    seen = [error["input"] for error in line.errors(include_url=False)]
    if all(isinstance(one, str) and not one.strip() for one in seen):
        return  # An empty line asks for nothing.
    error = ErrorData(
        code=-32700 if line.errors()[0]["type"] == "json_invalid" else -32600,
        message=f"the message cannot be read: {what_is_wrong(line, 'the line')}. Each line is one message of "
        "JSON-RPC 2.0, in UTF-8, without halves of characters such as \\ud800",
    )
    await answers.send(SessionMessage(JSONRPCError(jsonrpc="2.0", id=_id_in(seen), error=error)))


def _id_in(seen: list[Any]) -> str | int | None:
    """The id of the request that was meant, where it can be told."""
    for one in seen:
        with suppress(ValueError, RecursionError):
            raw = json.loads(one) if isinstance(one, str) else one
            if isinstance(raw, dict) and "id" in raw and type(raw["id"]) in (str, int):
                return str(raw["id"]) if isinstance(raw["id"], str) else int(raw["id"])
    return None
