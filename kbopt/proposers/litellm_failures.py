"""What LiteLLM raises, as the failures that the pool of models knows."""

from __future__ import annotations

import contextlib
import email.utils
import os
import re
import time
from collections.abc import Iterator
from typing import Any

from kbopt.core.redaction import redact
from kbopt.core.text import one_line
from kbopt.proposers.models import Garbled, ModelUnusable, RequestFailed, TimedOut, Unanswerable
from kbopt.proposers.replies import number

MAX_REASON_CHARS = 300


@contextlib.contextmanager
def typed_failures(litellm: Any, timeout_s: float) -> Iterator[None]:
    """Turns what LiteLLM raises into `RequestFailed`, `ModelUnusable` or `Unanswerable`."""
    try:
        yield
    except TimeoutError:
        raise TimedOut(f"no answer within {timeout_s:g} s; --request-timeout allows more") from None
    except tuple(litellm.exceptions.LITELLM_EXCEPTION_TYPES) as error:
        raise _classified(error) from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        # What LiteLLM's parsers raise for a body that is JSON but not the protocol's.
        raise Garbled(f"the answer is not in the protocol's form: {one_line(repr(error))}") from error


def _classified(error: Any) -> RequestFailed | ModelUnusable | Unanswerable:
    reason = short_reason(error)
    status = getattr(error, "status_code", None)
    if status in _REFUSED or _NO_CREDIT.search(f"{error} {getattr(error, 'body', '')}"):
        return ModelUnusable(reason)
    if status in _NOT_ACCEPTED:
        return Unanswerable(reason)
    if _NO_ANSWER.search(str(error)):
        return Garbled(reason)
    return RequestFailed(reason, _retry_after_s(error))


_REFUSED = (401, 402, 403, 404, 405, 410, 451, 501)
_NOT_ACCEPTED = (400, 406, 411, 413, 414, 415, 422, 431)
"""Statuses that another request would meet as well; all others are weather."""

_NO_CREDIT = re.compile(
    r"insufficient[ _](?:balance|credits?|funds|quota)|credit balance is too low"
    r"|billing[ _](?:hard[ _]limit|not[ _]active)|spending limit|account is not active",
    re.I,
)
"""What services say of an empty account under statuses that are weather otherwise."""


_NO_ANSWER = re.compile(
    r"Invalid response object|Empty or invalid response|'choices' that is not a list"
    r"|line \d+ column \d+ \(char \d+\)"
)
"""What LiteLLM says of a body that is not JSON, or not of the protocol's form."""


def short_reason(error: BaseException) -> str:
    """The service's words on one line: without LiteLLM's stack of class names, and without keys."""
    words = one_line(str(error).partition("Traceback (most recent call last)")[0])
    kind = type(error).__name__
    for prefix in ("litellm.", f"{kind}: ", f"{kind}: ", "OpenAIException - "):
        words = words.removeprefix(prefix)
    words = redact(words, os.environ)
    return f"{kind}: {words}"[:MAX_REASON_CHARS]


def _retry_after_s(error: Any) -> float | None:
    """The `Retry-After` of the response, which is a number of seconds or a date (RFC 9110, 10.2.3)."""
    headers = getattr(error, "litellm_response_headers", None) or {}
    value = headers.get("retry-after")
    if value is None:
        return None
    if (seconds := number(value)) is not None:
        return seconds
    with contextlib.suppress(ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None
