"""`kbopt mcp`: the tools that an agent sees, by the official MCP SDK, on stdio and streamable HTTP."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp_types import ToolAnnotations
from pydantic import Field
from starlette.applications import Starlette
from starlette.routing import Mount

from kbopt.agents import calls
from kbopt.agents.answers import Best, Evaluation, History, Submission, Tasks
from kbopt.agents.evidence import Against, Evidence, Profiled
from kbopt.agents.mcp_calls import ToolServer, proposer_of, told, while_waiting
from kbopt.agents.serving import SESSION_HEADER, serve
from kbopt.agents.session import Judge, Offer, Session
from kbopt.core.protocol import EvalProtocol
from kbopt.proposers.prompt import BOTH_PASSES

INSTRUCTIONS = """kbopt judges GPU and CPU kernels: is one correct, and how much faster than PyTorch is it?
1. Call tasks for the names, and tasks with a name for its source: the reference `Model` and its inputs.
2. Write a Python source with `class ModelNew(torch.nn.Module)`: same constructor and forward as `Model`, the
   work in a kernel of your own (Triton, CUDA or C++ by torch.utils.cpp_extension.load_inline).
3. Call evaluate. Read its feedback, change one thing, say it in `note`, and evaluate again.
   Call profile to learn what limits a correct kernel before you change it.
4. Call best, then submit. A submission ends the work on its task.
The judge draws fresh inputs and checks what it times. It rejects kernels that return or change their inputs,
hand out an old output again, keep more cores busy than the reference, or compute in less precision than
asked for.
Never tune for fixed inputs: a rejected kernel counts for nothing."""


TaskName = Annotated[str, Field(description="A name that tasks lists, such as quick/gelu")]
Kernel = Annotated[str, Field(description="The whole Python source; it defines ModelNew")]
Note = Annotated[str, Field(description="What you changed, in one line, for the report")]
OneTask = Annotated[str, Field(description="Needed only where the session has several tasks")]


def instructions(protocol: EvalProtocol) -> str:
    """What a client is told first, for kernels that are judged by `protocol`."""
    return f"{INSTRUCTIONS}\n{BOTH_PASSES}" if protocol.backward else INSTRUCTIONS


def serve_stdio(offer: Offer) -> None:
    """Serve one client on stdin and stdout until it closes stdin. Ends the process after a signal."""
    ended_by = asyncio.run(serve(offer, _stdio))
    if ended_by:
        # A thread waits in read() on stdin and would keep the interpreter; all else has been closed.
        sys.stderr.flush()
        os._exit(128 + ended_by)


def http_app(judge: Judge, host: str) -> Starlette:
    """The server as an application of HTTP, at /mcp."""
    server = build(judge)
    return Starlette(
        routes=[Mount("/", server.streamable_http_app(host=host))],
        lifespan=lambda _: server.session_manager.run(),
    )


def build(judge: Judge) -> ToolServer:
    """The server with its tools. It serves any number of clients, each with a session of its own."""
    server = ToolServer(instructions(judge.offer.protocol))
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    adds = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)

    @server.tool(annotations=reads)
    async def tasks(
        ctx: Context[Any, Any],
        name: Annotated[str, Field(description="Give one name to get its source; empty lists all")] = "",
    ) -> Tasks:
        """List the tasks that can be judged, or give the source of one: what a kernel has to compute."""
        with told():
            return calls.tasks(_session(judge, ctx), name)

    @server.tool(annotations=adds)
    async def evaluate(ctx: Context[Any, Any], task: TaskName, kernel: Kernel, note: Note = "") -> Evaluation:
        """Judge a kernel: is it correct, and how fast? Takes seconds to minutes, and one evaluation."""
        session = _session(judge, ctx)
        work = calls.evaluate(session, task, kernel, proposer=proposer_of(ctx), note=note)
        return await while_waiting(ctx, work, judge.waits)

    @server.tool(annotations=reads)
    async def history(ctx: Context[Any, Any]) -> History:
        """List what this session evaluated, oldest first, without the sources."""
        return calls.history(_session(judge, ctx))

    @server.tool(annotations=reads)
    async def best(ctx: Context[Any, Any], task: OneTask = "") -> Best:
        """Give the fastest correct kernel of this session, with its source."""
        with told():
            return calls.best(_session(judge, ctx), task)

    @server.tool(annotations=reads)
    async def profile(
        ctx: Context[Any, Any],
        candidate: Profiled = "",
        against: Against = "",
        task: OneTask = "",
    ) -> Evidence:
        """Say what limits a kernel that was measured: memory, arithmetic, latency or launches, and what to
        try. Costs no evaluation, and waits until nothing is being judged.
        """
        work = calls.profile(_session(judge, ctx), candidate, against, task)
        return await while_waiting(ctx, work, judge.waits)

    @server.tool(annotations=adds)
    async def submit(
        ctx: Context[Any, Any],
        candidate: Annotated[str, Field(description="The id of an evaluated kernel; empty: the best")] = "",
        kernel: Annotated[str, Field(description="Or a source, which is evaluated first")] = "",
        task: OneTask = "",
        note: Note = "",
    ) -> Submission:
        """Hand in the answer. It is measured once more, and so are the best kernels; the work on this task
        then ends.
        """
        session, proposer = _session(judge, ctx), proposer_of(ctx)
        work = calls.submit(session, candidate, kernel, task, proposer=proposer, note=note)
        return await while_waiting(ctx, work, judge.waits)

    return server


async def _stdio(judge: Judge, stop: asyncio.Event) -> None:
    serving = asyncio.create_task(build(judge).run_stdio_async())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if serving.done():
        await serving


def _session(judge: Judge, ctx: Context[Any, Any]) -> Session:
    """By the session id of HTTP, else by the client's own header; stdio has one session."""
    headers = ctx.headers or {}
    by_transport = headers.get("mcp-session-id")
    return judge.session(f"id {by_transport}" if by_transport else f"name {headers.get(SESSION_HEADER, '')}")
