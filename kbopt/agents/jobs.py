"""Long calls of HTTP. Each has an id and goes on whatever becomes of the connection that asked for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, Field

from kbopt.agents.answers import Evaluation, Submission
from kbopt.agents.evidence import Evidence
from kbopt.agents.problems import Problem, Refusal, refusal
from kbopt.agents.session import Judge
from kbopt.core.errors import InfraError, UserError

MAX_RUNNING = 256
"""Jobs of one session under way: four times the 64 kernels of one call. A client that asks for more without
waiting is a loop that has gone wild."""

MAX_KEPT = 1000
"""Jobs that are over and still answered, of one session; at some 10 KB each they hold 10 MB."""

CallName = Literal["evaluate", "profile", "submit"]


class Evaluations(BaseModel):
    """The answer to evaluate: a verdict for each kernel, or why it has none, in their order."""

    evaluations: list[Evaluation | Problem]


class JobState(BaseModel):
    """A long call."""

    job: str
    call: CallName
    state: Literal["running", "done", "failed"]
    waited_s: float = Field(description="Seconds since it was asked for, or that it took")


class Job(JobState):
    """A long call with its answer, which is None while it runs and a problem where it failed."""

    waits: str = Field(default="", description="What the evaluator does just now")
    answer: Evaluations | Evidence | Submission | Problem | None = None


class JobList(BaseModel):
    """The jobs of a session that are still answered, oldest first."""

    jobs: list[JobState]


@dataclass(eq=False, slots=True)
class _Running:
    id: str
    call: CallName
    task: asyncio.Task[Evaluations | Evidence | Submission]
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None

    def state(self) -> JobState:
        failed = self.task.done() and self.task.exception() is not None
        seconds = (self.ended or time.monotonic()) - self.started
        state: Literal["running", "done", "failed"] = (
            "failed" if failed else "done" if self.task.done() else "running"
        )
        return JobState(job=self.id, call=self.call, state=state, waited_s=round(seconds, 3))


class Jobs:
    """The jobs of all sessions of one judge. For one event loop."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._jobs: dict[str, dict[str, _Running]] = {}
        self._num_started = 0

    def start(
        self, session: str, call: CallName, work: Coroutine[Any, Any, Evaluations | Evidence | Submission]
    ) -> str:
        """Begin a job of `session`; its id. Raises `Refusal` where too many are under way."""
        jobs = self._jobs.setdefault(session, {})
        over = [job for job in jobs.values() if job.task.done()]
        if len(jobs) - len(over) >= MAX_RUNNING:
            work.close()
            raise Refusal(
                429,
                "too_many",
                f"{MAX_RUNNING} jobs of this session are under way, and no more are at once. Wait for one: "
                "GET /v1/jobs lists them.",
            )
        for old in over[: len(over) + 1 - MAX_KEPT] if len(over) >= MAX_KEPT else []:
            del jobs[old.id]
        self._num_started += 1
        job = _Running(f"j{self._num_started:06d}", call, asyncio.create_task(work))
        jobs[job.id] = job

        def ended(_: object) -> None:
            job.ended = time.monotonic()

        job.task.add_done_callback(ended)
        return job.id

    async def seen(self, session: str, job: str, wait_s: float) -> Job:
        """The job, after it ended or `wait_s` seconds. Raises `Refusal` for one that is not there."""
        found = self._jobs.get(session, {}).get(job)
        if found is None:
            raise Refusal(
                404,
                "not_found",
                f"this session has no job {job[:100]!r}. GET /v1/jobs lists those that it has, and GET "
                "/v1/history what was judged. Jobs end with their server, and each session has its own.",
            )
        await asyncio.wait([found.task], timeout=wait_s)
        if not found.task.done():
            return Job(**dict(found.state()), waits=await self._judge.waits())
        error = found.task.exception()
        if isinstance(error, UserError | InfraError):
            return Job(**dict(found.state()), answer=refusal(error).problem)
        return Job(**dict(found.state()), answer=found.task.result())

    def all(self, session: str) -> JobList:
        return JobList(jobs=[job.state() for job in self._jobs.get(session, {}).values()])
