"""The judge for the agent of one brief, as an MCP server on stdio: `python -m kbopt.agents.brief PLACE`.

The agent starts it. What it is asked it passes to the desk of the brief, whose port and token PLACE holds.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any, TypeVar

from mcp.server.mcpserver import Context
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field

from kbopt.agents.answers import Best, Evaluation, History, Judged, checked, figures, judged
from kbopt.agents.evidence import Against, Evidence, Profiled, evidence
from kbopt.agents.mcp_calls import ToolServer, proposer_of, told, while_waiting
from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.profile import Profile
from kbopt.core.proposals import Trial
from kbopt.core.scoring import mean_score
from kbopt.core.task import Task
from kbopt.proposers.agent_desk import (
    BriefState,
    Call,
    Evaluate,
    Explain,
    Look,
    Place,
    Refused,
    Reply,
    Submit,
    Verdict,
)

R = TypeVar("R", BriefState, Verdict, Profile)

MAX_REPLY = 256 * 2**20
"""Bytes of one reply: all trials of a brief, each with its source and hundreds of samples."""

INSTRUCTIONS = """kbopt judges kernels for one task: is one correct, and how much faster than PyTorch is it?
Read TASK.md. Write a Python source with `class ModelNew(torch.nn.Module)`, call evaluate, read the feedback,
change one thing and evaluate again. Call profile to learn what limits a correct kernel before you change it.
Call submit with the id of your best kernel: without it your work is no answer."""


class Standing(BaseModel):
    """The task, and what is left of the budget."""

    task: str
    source: str = Field(description="The reference in KernelBench's format")
    evaluations_left: int
    minutes_left: float


class Submitted(BaseModel):
    """The kernel that counts as the answer, unless another one is submitted after it."""

    candidate: str
    speedup: float | None
    speedup_ci: tuple[float, float] | None


class DeskClient:
    """Calls one desk, each over a connection of its own: a call that was given up disturbs no other."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def state(self) -> BriefState:
        return await self._expect(BriefState, Look())

    async def evaluate(self, call: Evaluate) -> Verdict:
        return await self._expect(Verdict, call)

    async def profile(self, candidate: str) -> Profile:
        return await self._expect(Profile, Explain(candidate=candidate))

    async def submit(self, candidate: str) -> BriefState:
        return await self._expect(BriefState, Submit(candidate=candidate))

    async def _expect(self, kind: type[R], call: Call) -> R:
        reply = await self._ask(call)
        if isinstance(reply, Refused):
            raise UserError(reply.reason)
        if not isinstance(reply, kind):
            raise InfraError(f"the desk answered with a {type(reply).__name__}")
        return reply

    async def _ask(self, call: Call) -> Reply:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._place.port, limit=MAX_REPLY)
            try:
                writer.write(f"{self._place.token}\n{codec.dumps(call)}\n".encode())
                line = await reader.readline()
            finally:
                writer.close()
        except OSError as error:
            raise InfraError(f"the search that asked for this is gone: {error}") from None
        if not line:
            raise InfraError("the search that asked for this is gone, or too many calls are under way")
        reply: Reply = codec.loads(Reply, line)  # type: ignore[arg-type]
        return reply


def build(desk: DeskClient) -> ToolServer:
    """The server with its tools."""
    server = ToolServer(INSTRUCTIONS)
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    adds = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)

    @server.tool(annotations=reads)
    async def task() -> Standing:
        """Give the task's source, and what is left of the budget."""
        with told():
            state = await desk.state()
        return Standing(task=state.task, source=state.source, **_left(state))

    @server.tool(annotations=adds)
    async def evaluate(
        ctx: Context[Any, Any],
        kernel: Annotated[str, Field(description="The whole Python source; it defines ModelNew")],
        note: Annotated[str, Field(description="What you changed, in one line, for the report")] = "",
    ) -> Evaluation:
        """Judge a kernel: is it correct, and how fast? Takes seconds to minutes, and one evaluation."""

        async def evaluated() -> Verdict:
            state = await desk.state()
            source = checked(kernel, Task(name=state.task, source=state.source))
            return await desk.evaluate(Evaluate(source=source, note=note, client=proposer_of(ctx)))

        verdict = await while_waiting(ctx, evaluated(), _waits)
        best = _best(verdict.state)
        return Evaluation(
            **judged(verdict.trial, verdict.state.task, cached=verdict.cached),
            feedback=verdict.trial.results[0].feedback,
            best=best.candidate.id if best else None,
            best_speedup=figures(best)["speedup"] if best else None,
            **_left(verdict.state),
        )

    @server.tool(annotations=reads)
    async def history() -> History:
        """List what was evaluated for this brief, oldest first, without the sources."""
        with told():
            state = await desk.state()
        rows = [Judged(**judged(trial, state.task, cached=False)) for trial in state.trials]
        return History(evaluations=rows, **_left(state))

    @server.tool(annotations=reads)
    async def best() -> Best:
        """Give the fastest correct kernel of this brief, with its source."""
        with told():
            state = await desk.state()
            found = _found(state)
        return Best(**judged(found, state.task, cached=False), kernel=found.candidate.source)

    @server.tool(annotations=reads)
    async def profile(ctx: Context[Any, Any], candidate: Profiled = "", against: Against = "") -> Evidence:
        """Say what limits a kernel that was measured: memory, arithmetic, latency or launches, and what to
        try. Costs no evaluation, and waits until nothing is being judged.
        """

        async def profiled() -> Evidence:
            state = await desk.state()
            chosen = candidate or _found(state).candidate.id
            parent = await desk.profile(against) if against else None
            found = await desk.profile(chosen)
            minutes_left = _left(await desk.state())["minutes_left"]
            return evidence(state.task, chosen, found, parent, minutes_left)

        return await while_waiting(ctx, profiled(), _waits)

    @server.tool(annotations=adds)
    async def submit(
        candidate: Annotated[str, Field(description="The id of an evaluated kernel; empty: the best")] = "",
    ) -> Submitted:
        """Hand in an evaluated kernel as your answer. You may go on, and submit a better one later."""
        with told():
            candidate = candidate or _found(await desk.state()).candidate.id
            state = await desk.submit(candidate)
        chosen = next(trial for trial in state.trials if trial.candidate.id == candidate)
        told_of = figures(chosen)
        return Submitted(candidate=candidate, speedup=told_of["speedup"], speedup_ci=told_of["speedup_ci"])

    return server


async def _waits() -> str:
    return "the kernel is in the evaluator's queue, or being judged or profiled"


def _best(state: BriefState) -> Trial | None:
    correct = [trial for trial in state.trials if mean_score(trial) > 0.0]
    return max(correct, key=mean_score, default=None)


def _found(state: BriefState) -> Trial:
    best = _best(state)
    if best is None:
        raise UserError(
            f"no kernel for {state.task} is correct yet: {len(state.trials)} were evaluated. Call history "
            "for the reasons."
        )
    return best


def _left(state: BriefState) -> dict[str, Any]:
    return {"evaluations_left": state.evaluations_left, "minutes_left": round(state.minutes_left, 2)}


def main() -> None:
    """Serve until the client closes stdin."""
    place = codec.loads(Place, Path(sys.argv[1]).read_bytes())
    asyncio.run(build(DeskClient(place)).run_stdio_async())


if __name__ == "__main__":
    main()
