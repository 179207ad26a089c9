"""`kbopt serve`: the judge over HTTP and JSON, for optimizers in any language.

What is quick is answered at once: tasks, history, best. What takes long is a job: its call answers with an id
at once, or within `wait_s` seconds with its answer, and whoever has the id asks again until it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kbopt.agents import calls
from kbopt.agents.answers import Best, Evaluation, History, Tasks, proposer_name, what_is_wrong
from kbopt.agents.jobs import CallName, Evaluations, Job, JobList, Jobs
from kbopt.agents.openapi import Operation, document
from kbopt.agents.problems import Problem, Refusal, refusal
from kbopt.agents.serving import SESSION_HEADER
from kbopt.agents.session import Judge, Session
from kbopt.core.errors import InfraError, UserError

MAX_KERNELS = 64
"""Kernels of one call: as many as a device judges in some minutes."""

MAX_BODY_BYTES = 32 * 2**20
"""Bytes of one call: 64 kernels of the largest size, 256 KiB, each byte of which JSON may spell with two."""

MAX_WAIT_S = 50.0
"""Seconds that a call may wait for its answer: nginx and other proxies cut a silent one after 60."""

M = TypeVar("M", bound=BaseModel)


class Given(BaseModel):
    """What a client sends. A field that is not known is refused: it may be a misspelt one."""

    model_config = ConfigDict(extra="forbid")


class Nothing(Given):
    """No parameters."""


class OneTask(Given):
    """Whose best kernel is meant."""

    task: str = Field(default="", description="Needed only where the session has several tasks")


class OneName(Given):
    """Which task is meant."""

    name: str = Field(default="", description="Give one name to get its source; empty lists all")


class Wait(Given):
    """How long to wait for the job."""

    wait_s: float = Field(default=0.0, ge=0.0, le=MAX_WAIT_S, description="Seconds to wait for the answer")


class Kernel(Given):
    """A kernel to judge."""

    kernel: str = Field(description="The whole Python source; it defines ModelNew")
    note: str = Field(default="", description="What was changed, in one line, for the report")


class ToEvaluate(Given):
    """Kernels to judge, one evaluation each."""

    task: str = Field(description="A name that tasks lists, such as quick/gelu")
    kernels: list[Kernel] = Field(min_length=1, max_length=MAX_KERNELS)


class ToProfile(OneTask):
    """The kernel whose limits are asked for."""

    candidate: str = Field(default="", description="The id of a measured kernel; empty: the best")
    against: str = Field(default="", description="Another id, to say what changed against it")


class ToSubmit(OneTask):
    """The answer: the id of an evaluated kernel, or a source, which is evaluated first, or else the best."""

    candidate: str = Field(default="", description="The id of an evaluated kernel; empty: the best")
    kernel: str = Field(default="", description="Or a source, which is evaluated first")
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request, read: whose it is and what it says."""

    name: str
    session: Session
    proposer: str
    job: str
    query: Any
    body: Any


def http_app(judge: Judge) -> Starlette:
    """The calls as an application of HTTP, under /v1."""
    api = _Api(judge)
    operations = api.operations()
    described = document(list(operations), SESSION_HEADER)

    async def openapi(_: Request) -> Response:
        return JSONResponse(described)

    return Starlette(
        routes=[
            *(
                Route(each.path, api.endpoint(each, answer), methods=[each.method])
                for each, answer in operations.items()
            ),
            Route("/v1/openapi.json", openapi),
        ],
        exception_handlers={
            Refusal: _refused,
            UserError: _failed,
            InfraError: _failed,
            HTTPException: _no_such_call,
            Exception: _internal,
        },
    )


class _Api:
    """What each call does."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._jobs = Jobs(judge)

    def operations(self) -> dict[Operation, Callable[[Asked], Awaitable[BaseModel]]]:
        one = Operation
        return {
            one("GET", "/v1/tasks", OneName, None, Tasks, "The tasks, or the source of one"): self.tasks,
            one("GET", "/v1/history", Nothing, None, History, "What this session evaluated"): self.history,
            one("GET", "/v1/best", OneTask, None, Best, "The fastest correct kernel"): self.best,
            one("POST", "/v1/evaluate", Wait, ToEvaluate, Job, "Judge kernels: a job"): self.evaluate,
            one("POST", "/v1/profile", Wait, ToProfile, Job, "What limits a kernel: a job"): self.profile,
            one("POST", "/v1/submit", Wait, ToSubmit, Job, "Hand in the answer: a job"): self.submit,
            one("GET", "/v1/jobs", Nothing, None, JobList, "The jobs of this session"): self.jobs,
            one("GET", "/v1/jobs/{job}", Wait, None, Job, "A job, with its answer once done"): self.job,
        }

    def endpoint(
        self, operation: Operation, answer: Callable[[Asked], Awaitable[BaseModel]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                found = await answer(await self._asked(request, operation))
            except ClientDisconnect:  # in the middle of its own request: nobody reads an answer
                return Response(status_code=400)
            status = 202 if isinstance(found, Job) and found.state == "running" else 200
            return Response(found.model_dump_json(), status, media_type="application/json")

        return endpoint

    async def tasks(self, asked: Asked) -> Tasks:
        return calls.tasks(asked.session, asked.query.name)

    async def history(self, asked: Asked) -> History:
        return calls.history(asked.session)

    async def best(self, asked: Asked) -> Best:
        return calls.best(asked.session, asked.query.task)

    async def evaluate(self, asked: Asked) -> Job:
        body: ToEvaluate = asked.body
        asked.session.task(body.task)  # no job for a task that is not offered

        async def one(kernel: Kernel) -> Evaluation | Problem:
            try:
                return await calls.evaluate(
                    asked.session, body.task, kernel.kernel, proposer=asked.proposer, note=kernel.note
                )
            except (UserError, InfraError) as error:
                return refusal(error).problem

        async def evaluated() -> Evaluations:
            return Evaluations(evaluations=await asyncio.gather(*map(one, body.kernels)))

        return await self._started(asked, "evaluate", evaluated())

    async def profile(self, asked: Asked) -> Job:
        body: ToProfile = asked.body
        work = calls.profile(asked.session, body.candidate, body.against, body.task)
        return await self._started(asked, "profile", work)

    async def submit(self, asked: Asked) -> Job:
        body: ToSubmit = asked.body
        work = calls.submit(
            asked.session, body.candidate, body.kernel, body.task, proposer=asked.proposer, note=body.note
        )
        return await self._started(asked, "submit", work)

    async def jobs(self, asked: Asked) -> JobList:
        return self._jobs.all(asked.name)

    async def job(self, asked: Asked) -> Job:
        return await self._jobs.seen(asked.name, asked.job, asked.query.wait_s)

    async def _started(self, asked: Asked, call: CallName, work: Any) -> Job:
        return await self._jobs.seen(asked.name, self._jobs.start(asked.name, call, work), asked.query.wait_s)

    async def _asked(self, request: Request, operation: Operation) -> Asked:
        name = request.headers.get(SESSION_HEADER, "")
        query = _read(operation.query, dict(request.query_params), "the query")
        body = _read(operation.body, await _body(request), "the body") if operation.body else None
        return Asked(
            name=name,
            session=self._judge.session(f"name {name}"),
            proposer=proposer_name(request.headers.get("user-agent", "").partition("/")[0]),
            job=request.path_params.get("job", ""),
            query=query,
            body=body,
        )


async def _body(request: Request) -> bytes:
    """The whole body. Raises `Refusal` for one that is too large, before all of it is in memory."""
    too_large = Refusal(
        413,
        "too_large",
        f"the body has more than {MAX_BODY_BYTES:,} bytes, which is all that is read. Send fewer "
        f"kernels in one call; each may have 262,144 bytes, and {MAX_KERNELS} go into one.",
    )
    if int(request.headers.get("content-length", 0)) > MAX_BODY_BYTES:  # h11 lets only numbers through
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise too_large
    return bytes(body)


def _read(kind: type[M], given: dict[str, str] | bytes, what: str) -> M:
    try:
        return kind.model_validate_json(given) if isinstance(given, bytes) else kind.model_validate(given)
    except ValidationError as error:
        raise Refusal(
            400,
            "bad_request",
            f"{what} cannot be read: {what_is_wrong(error, what)}. It takes "
            f"{', '.join(kind.model_fields) or 'nothing'}; GET /v1/openapi.json describes it.",
        ) from None


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.problem.response(error.status)


async def _failed(_: Request, error: Exception) -> Response:
    assert isinstance(error, UserError | InfraError)
    found = refusal(error)
    return found.problem.response(found.status)


async def _no_such_call(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    asked = f"{request.method} {request.url.path[:100]}"
    kind: Any = "wrong_method" if error.status_code == 405 else "not_found"
    message = f"there is no call {asked}. GET /v1/openapi.json lists those that there are."
    return Problem(error=kind, message=message).response(error.status_code, error.headers)


async def _internal(_: Request, error: Exception) -> Response:
    """A fault of kbopt's own, whose traceback the server prints."""
    message = f"kbopt failed: {type(error).__name__}. Its server printed the traceback; please report it."
    return Problem(error="internal", message=message).response(500)
