"""What `kbopt mcp`, `kbopt serve` and the tools of the agent of one brief answer."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from kbopt.core.errors import UserError
from kbopt.core.outcomes import Measured, Rejected, outcome_name
from kbopt.core.proposals import Trial
from kbopt.core.task import Task
from kbopt.proposers.agent_desk import MAX_KERNEL_BYTES
from kbopt.tasks import as_model

INFRA_REMEDY = "the machine failed, the kernel is not to blame: {error}. Try the same call once more."


def what_is_wrong(error: ValidationError, what: str) -> str:
    """The first fault of what a client sent, in words: its place, what is allowed, and what was seen."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"])) or what
    seen = "" if first["type"] in ("missing", "json_invalid") else f" (seen: {str(first['input'])[:80]!r})"
    return f"{place}: {first['msg']}{seen}"


class TaskRow(BaseModel):
    """A task. `source` is the reference in KernelBench's format, only where the task was named."""

    name: str
    source: str | None = None


class Tasks(BaseModel):
    """What this server judges, and what this session may still use; None is no limit."""

    tasks: list[TaskRow]
    device: str
    max_kernel_bytes: int
    evaluations_left: int | None
    usd_left: float | None = None
    minutes_left: float | None


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
    usd_left: float | None = None
    minutes_left: float | None
    run: str = Field(default="", description="The run's folder: kbopt report RUN")


class History(BaseModel):
    """What this session evaluated, oldest first."""

    evaluations: list[Judged]
    evaluations_left: int | None
    usd_left: float | None = None
    minutes_left: float | None


class Best(Judged):
    """The fastest correct kernel."""

    kernel: str


class Submission(BaseModel):
    """The session's answer. It and the best kernels were measured once more; these figures alone count."""

    candidate: str
    task: str
    speedup: float | None = Field(description="Measured once more; None where it failed then")
    speedup_ci: tuple[float, float] | None
    faster: str = Field(description="Which other kernel measured faster at the end, in a sentence, or empty")
    winner: str = Field(description="The run's answer: the candidate, another one only where it failed")
    winner_speedup: float
    winner_speedup_ci: tuple[float, float]
    winner_file: str
    report: str


def proposer_name(client: str) -> str:
    """Who wrote a kernel, by what its client calls itself, such as `agent:claude-code`."""
    name = re.sub(r"[^\w.-]+", "-", client)[:40]
    return f"agent:{name or 'unnamed'}"


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
