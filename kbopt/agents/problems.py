"""Why a call of HTTP has no answer, as its client reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, Field
from starlette.responses import Response

from kbopt.agents.answers import INFRA_REMEDY
from kbopt.core.errors import InfraError, UserError

Kind = Literal[
    "no_token",
    "bad_request",
    "not_found",
    "wrong_method",
    "too_large",
    "too_many",
    "refused",
    "machine_failed",
    "internal",
]


class Problem(BaseModel):
    """What was wrong. `message` says what was seen, what is allowed and what to do."""

    error: Kind = Field(description="machine_failed may be asked for again; the others need a change")
    message: str

    def response(self, status: int, headers: Mapping[str, str] | None = None) -> Response:
        return Response(self.model_dump_json(), status, headers, "application/json")


class Refusal(Exception):
    """A problem with the status that HTTP gives it."""

    def __init__(self, status: int, error: Kind, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.problem = Problem(error=error, message=message)


def refusal(error: UserError | InfraError) -> Refusal:
    """What a user or a machine did wrong, as a client reads it."""
    if isinstance(error, UserError):
        return Refusal(422, "refused", str(error))
    return Refusal(503, "machine_failed", INFRA_REMEDY.format(error=error))
