"""What the tools of both MCP servers answer: those of `kbopt mcp`, and those of the agent of one brief."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

from kbopt.core.errors import InfraError, UserError
from kbopt.core.types import Measured, Rejected, Task, Trial, outcome_name
from kbopt.proposers.agent_desk import MAX_KERNEL_BYTES
from kbopt.tasks import as_model

T = TypeVar("T")

PROGRESS_S = 2.0
"""Seconds between two reports of progress: a person watches, and some clients give up a silent call."""


class TaskRow(BaseModel):
    """A task. `source` is the reference in KernelBench's format, only where the task was named."""

    name: str
    source: str | None = None


class Judged(BaseModel):
    """A kernel and its verdict. `speedup` is over the reference, `speedup_ci` its 95 % interval."""

    candidate: str = Field(description="The kernel's id in this task, for submit")
    task: str
    outcome: str = Field(
        description="measured (correct and timed), wrong_answer, compile_failed, crashed, timed_out, rejected"
    )
    speedup: float | None = None
    speedup_ci: tuple[float, float] | None = None
    kernel_ms: float | None = Field(default=None, description="Median of one call, milliseconds")
    reference_ms: float | None = Field(default=None, description="Median of one call, milliseconds")
    reason: str = Field(default="", description="Why it was not measured")
    note: str = ""
    cached: bool = Field(default=False, description="An equal source was judged before; costs nothing")


class Evaluation(Judged):
    """The answer to evaluate."""

    feedback: str
    best: str | None = Field(description="The id of the fastest correct kernel so far")
    best_speedup: float | None
    evaluations_left: int | None
    minutes_left: float | None
    run: str = Field(default="", description="The run's folder: kbopt report RUN")


class History(BaseModel):
    """What this session evaluated, oldest first."""

    evaluations: list[Judged]
    evaluations_left: int | None
    minutes_left: float | None


class Best(Judged):
    """The fastest correct kernel."""

    kernel: str


def proposer_of(ctx: Context[Any, Any]) -> str:
    """Who wrote the kernel, as the client calls itself, such as `agent:claude-code`."""
    params = ctx.session.client_params
    name = re.sub(r"[^\w.-]+", "-", params.client_info.name)[:40] if params else ""
    return f"agent:{name or 'unnamed'}"


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
        raise ToolError(
            f"the machine failed, the kernel is not to blame: {error}. Try the same call once more."
        ) from error


def judged(trial: Trial, task: str, *, cached: bool) -> dict[str, Any]:
    """The fields of a `Judged`."""
    return {
        "candidate": trial.candidate.id,
        "task": task,
        "outcome": outcome_name(trial.results[0].outcome),
        "reason": why(trial),
        "note": trial.candidate.note,
        "cached": cached,
        **figures(trial),
    }


def figures(trial: Trial) -> dict[str, Any]:
    """The fields of a `Judged` that only a kernel that was measured has."""
    outcome = trial.judged[-1].outcome
    if not isinstance(outcome, Measured):
        return {}
    kernel_ms, reference_ms = outcome.call_ms
    return {
        "speedup": outcome.speedup,
        "speedup_ci": outcome.speedup_ci,
        "kernel_ms": kernel_ms,
        "reference_ms": reference_ms,
    }


def checked(kernel: str, task: Task) -> str:
    """`kernel` as a source that defines `ModelNew`. Raises `UserError` for what no judge should see."""
    size = len(kernel.encode("utf-8", "surrogatepass"))
    if not kernel.strip():
        raise UserError(
            "the kernel is empty. Give the whole Python source; it defines `class ModelNew(torch.nn.Module)`."
        )
    if size > MAX_KERNEL_BYTES:
        raise UserError(
            f"the kernel has {size:,} bytes; at most {MAX_KERNEL_BYTES:,} are judged. Compute tables in "
            "__init__ instead of writing them out, and leave out what is not used."
        )
    try:
        kernel.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the kernel is not valid Unicode: {error}. Send UTF-8 text.") from None
    return as_model(kernel, "the kernel", task)


def why(trial: Trial) -> str:
    """Why a kernel was not measured, in a line; empty where it was."""
    outcome = trial.results[0].outcome
    if isinstance(outcome, Measured):
        return ""
    family = f"{outcome.family}: " if isinstance(outcome, Rejected) else ""
    return family + (outcome.reason.splitlines() or [""])[0]
