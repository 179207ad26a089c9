"""The tools that an agent sees, by the official MCP SDK."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field

from kbopt import __version__
from kbopt.agents.answers import (
    Best,
    Evaluation,
    History,
    Judged,
    TaskRow,
    figures,
    judged,
    proposer_of,
    told,
    while_waiting,
)
from kbopt.agents.evidence import Evidence, evidence
from kbopt.agents.run import AgentRun
from kbopt.agents.session import Judge, Session
from kbopt.core.errors import UserError
from kbopt.core.types import EvalProtocol, Measured, Trial
from kbopt.core.workloads import shown_source
from kbopt.proposers.agent_desk import MAX_KERNEL_BYTES
from kbopt.proposers.prompt import BOTH_PASSES

SESSION_HEADER = "kbopt-session"
"""By this header of HTTP a client names its session, where the protocol's revision has none."""

INSTRUCTIONS = """kbopt judges GPU and CPU kernels: is one correct, and how much faster than PyTorch is it?
1. Call tasks for the names, and tasks with a name for its source: the reference `Model` and its inputs.
2. Write a Python source with `class ModelNew(torch.nn.Module)`: same constructor and forward as `Model`, the
   work in a kernel of your own (Triton, CUDA or C++ by torch.utils.cpp_extension.load_inline).
3. Call evaluate. Read its feedback, change one thing, say it in `note`, and evaluate again.
   Call profile to learn what limits a correct kernel before you change it.
4. Call best, then submit. A submission ends the work on its task.
The judge draws fresh inputs and checks what it times. It rejects kernels that return or change their inputs,
hand out an old output again, work in threads of their own, or compute in less precision than asked for.
Never tune for fixed inputs: a rejected kernel counts for nothing."""


class Tasks(BaseModel):
    """What this server judges, and what this session may still use; None is no limit."""

    tasks: list[TaskRow]
    device: str
    max_kernel_bytes: int
    evaluations_left: int | None
    minutes_left: float | None


class Submission(BaseModel):
    """The session's answer. The best kernels were measured once more, and these figures alone count."""

    candidate: str
    task: str
    speedup: float | None = Field(description="Measured once more; None for a kernel far from the best")
    speedup_ci: tuple[float, float] | None
    winner: str = Field(description="The kernel that the judge found fastest at the end")
    winner_speedup: float
    winner_speedup_ci: tuple[float, float]
    winner_file: str
    report: str


TaskName = Annotated[str, Field(description="A name that tasks lists, such as quick/gelu")]
Kernel = Annotated[str, Field(description="The whole Python source; it defines ModelNew")]
Note = Annotated[str, Field(description="What you changed, in one line, for the report")]
OneTask = Annotated[str, Field(description="Needed only where the session has several tasks")]


def instructions(protocol: EvalProtocol) -> str:
    """What a client is told first, for kernels that are judged by `protocol`."""
    return f"{INSTRUCTIONS}\n{BOTH_PASSES}" if protocol.backward else INSTRUCTIONS


def build(judge: Judge) -> MCPServer[Any]:
    """The server with its tools. It serves any number of clients, each with a session of its own."""
    server: MCPServer[Any] = MCPServer(
        "kbopt", version=__version__, instructions=instructions(judge.offer.protocol), log_level="WARNING"
    )
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    adds = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)

    @server.tool(annotations=reads)
    async def tasks(
        ctx: Context[Any, Any],
        name: Annotated[str, Field(description="Give one name to get its source; empty lists all")] = "",
    ) -> Tasks:
        """List the tasks that can be judged, or give the source of one: what a kernel has to compute."""
        session = _session(judge, ctx)
        with told():
            found = (
                [(name, shown_source(session.task(name).source))]
                if name
                else [(n, None) for n in judge.offer.tasks]
            )
        config = judge.offer.backend
        return Tasks(
            tasks=[TaskRow(name=each, source=source) for each, source in found],
            device=f"{config.name}, {config.gpu if config.name == 'modal' else config.device}",
            max_kernel_bytes=MAX_KERNEL_BYTES,
            **_left(session),
        )

    @server.tool(annotations=adds)
    async def evaluate(ctx: Context[Any, Any], task: TaskName, kernel: Kernel, note: Note = "") -> Evaluation:
        """Judge a kernel: is it correct, and how fast? Takes seconds to minutes, and one evaluation."""
        session = _session(judge, ctx)
        run, trial = await while_waiting(
            ctx, session.evaluate(task, kernel, proposer=proposer_of(ctx), note=note), judge.waits
        )
        best = run.best
        return Evaluation(
            **_judged(run, trial),
            feedback=trial.results[0].feedback,
            best=best.candidate.id if best else None,
            best_speedup=figures(best)["speedup"] if best else None,
            run=str(run.folder),
            **_left(session),
        )

    @server.tool(annotations=reads)
    async def history(ctx: Context[Any, Any]) -> History:
        """List what this session evaluated, oldest first, without the sources."""
        session = _session(judge, ctx)
        rows = [Judged(**_judged(run, trial)) for run in session.runs.values() for trial in run.trials]
        return History(evaluations=rows, **_left(session))

    @server.tool(annotations=reads)
    async def best(ctx: Context[Any, Any], task: OneTask = "") -> Best:
        """Give the fastest correct kernel of this session, with its source."""
        with told():
            run = _session(judge, ctx).run(task)
            found = run.best
            if found is None:
                raise UserError(
                    f"no kernel for {run.config.task.name} is correct yet: {len(run.trials)} were evaluated. "
                    "Call history for the reasons."
                )
        return Best(**{**_judged(run, found), **figures(found)}, kernel=found.candidate.source)

    @server.tool(annotations=reads)
    async def profile(
        ctx: Context[Any, Any],
        candidate: Annotated[str, Field(description="The id of a measured kernel; empty: the best")] = "",
        against: Annotated[str, Field(description="Another id, to say what changed against it")] = "",
        task: OneTask = "",
    ) -> Evidence:
        """Say what limits a kernel that was measured: memory, arithmetic, latency or launches, and what to
        try. Costs no evaluation, and waits until nothing is being judged.
        """
        session = _session(judge, ctx)

        async def profiled() -> Evidence:
            run = session.run(task)
            chosen = candidate or (run.best.candidate.id if run.best else "")
            if not chosen:
                raise UserError(
                    f"no kernel for {run.config.task.name} is correct yet, so none can be profiled. "
                    "Call history for the reasons."
                )
            parent = await session.profile(run, against) if against else None
            found = await session.profile(run, chosen)
            name, left = run.config.task.name, _left(session)["minutes_left"]
            return evidence(name, chosen, found, parent, left)

        return await while_waiting(ctx, profiled(), judge.waits)

    @server.tool(annotations=adds)
    async def submit(
        ctx: Context[Any, Any],
        candidate: Annotated[str, Field(description="The id of an evaluated kernel; empty: the best")] = "",
        kernel: Annotated[str, Field(description="Or a source, which is evaluated first")] = "",
        task: OneTask = "",
        note: Note = "",
    ) -> Submission:
        """Hand in the answer. The best kernels are measured once more; the work on this task then ends."""
        session = _session(judge, ctx)

        async def submitted() -> Submission:
            if candidate and kernel:
                raise UserError(f"both candidate {candidate[:100]!r} and a kernel were given: give one")
            chosen = candidate
            if kernel:
                name = task or session.run().config.task.name
                _, trial = await session.evaluate(name, kernel, proposer=proposer_of(ctx), note=note)
                chosen = trial.candidate.id
            run = session.run(task)
            if not chosen:
                chosen = run.submitted or (run.best.candidate.id if run.best else "")
            if not chosen:
                raise UserError(
                    f"no kernel for {run.config.task.name} is correct yet, so none can be submitted. "
                    "Call history for the reasons."
                )
            done = await session.submit(run, chosen)
            final, winner = run.final(chosen), done.summary.best
            if winner is None:
                raise UserError(f"no kernel of {run.folder} passed the final measurement. See {done.report}.")
            outcome = final.outcome if final else None
            measured = outcome if isinstance(outcome, Measured) else None
            return Submission(
                candidate=chosen,
                task=run.config.task.name,
                speedup=measured.speedup if measured else None,
                speedup_ci=measured.speedup_ci if measured else None,
                winner=winner.candidate,
                winner_speedup=winner.speedup,
                winner_speedup_ci=winner.speedup_ci,
                winner_file=str(done.source),
                report=str(done.report),
            )

        return await while_waiting(ctx, submitted(), judge.waits)

    return server


def _session(judge: Judge, ctx: Context[Any, Any]) -> Session:
    """By the session id of HTTP, else by the client's own header; stdio has one session."""
    headers = ctx.headers or {}
    by_transport = headers.get("mcp-session-id")
    return judge.session(f"id {by_transport}" if by_transport else f"name {headers.get(SESSION_HEADER, '')}")


def _left(session: Session) -> dict[str, Any]:
    minutes = session.minutes_left
    return {
        "evaluations_left": session.evaluations_left,
        "minutes_left": None if minutes is None else round(minutes, 2),
    }


def _judged(run: AgentRun, trial: Trial) -> dict[str, Any]:
    return judged(trial, run.config.task.name, cached=run.was_cached(trial.candidate.id))
