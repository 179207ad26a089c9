"""What services answer in place of the OpenAI protocol's own form, read as far as it can be.

A kernel that was written and paid for is worth more than the form of the numbers beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kbopt.core.text import encodable

_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_REASONING = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
"""Where services put what a model thought, and by a wrong parser of theirs the whole answer."""

_MOST_TOKENS, _MOST_USD = 1e9, 1e4
"""Of one request: what is above is no figure, and would make sums that no journal holds."""

_DETAILS = ("prompt_tokens_details", "completion_tokens_details")


def mended(response: dict[str, Any]) -> dict[str, Any]:
    """`response`, the parsed body of a chat completion, in the form in which LiteLLM accepts it.

    Contents become strings and usage becomes counts. An error within a choice becomes the response's own.
    """
    choices = response.get("choices")
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict):
                response["error"] = response.get("error") or _error_of(choice)
                choice["message"] = _message(choice)
    usage = response.get("usage")
    response["usage"] = _usage(usage) if isinstance(usage, Mapping) else None
    if error := response.get("error"):
        given = dict(error) if isinstance(error, Mapping) else {"message": str(error)}
        code = given.get("code")
        if isinstance(code, str) and not number(code):  # a word, which says more than a status would
            given["message"] = f"{given.get('message') or ''} ({code})".strip()
        response["error"] = {**given, "code": count(code) or 500}
    return response


def text_of(content: object) -> str:
    """The text of a message's content, a string or parts, without thoughts; "" for anything else."""
    match content:
        case str():
            return encodable(content)
        case [*parts]:
            return "".join(text_of(part) for part in parts)
        case {"type": "thinking" | "reasoning" | "redacted_thinking"}:
            return ""
        case {"text": text} | {"value": text} | {"content": text}:
            return text_of(text)
        case _:
            return ""


def count(value: object) -> int:
    """`value` as a number of tokens, 0 where it is none."""
    return int(number(value, most=_MOST_TOKENS) or 0)


def dollars(value: object) -> float | None:
    """`value` as what one request cost, None where it is none."""
    return number(value, most=_MOST_USD)


def number(value: object, most: float = math.inf) -> float | None:
    """`value`, which may be a string, as a finite number from 0 to `most`; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        read = float(value)
    except (ValueError, OverflowError):
        return None
    return read if math.isfinite(read) and 0 <= read <= most else None


def _message(choice: dict[str, Any]) -> dict[str, Any]:
    """The fields that are read, and no others: LiteLLM refuses an answer for the form of any."""
    given = choice.get("message") or choice.get("delta")
    message = given if isinstance(given, Mapping) else {"content": given or choice.get("text")}
    content = message.get("content")
    return {
        "role": message.get("role") or "assistant",
        "content": None if content is None else text_of(content),
        "reasoning_content": next(filter(None, [text_of(message.get(name)) for name in _REASONING]), None),
        "refusal": message.get("refusal") or _refusal_in(content),
    }


def _refusal_in(content: object) -> object:
    parts = content if isinstance(content, list) else [content]
    return next((part.get("refusal") for part in parts if isinstance(part, Mapping)), None)


def _error_of(choice: dict[str, Any]) -> object:
    if choice.get("error"):
        return choice["error"]
    return {"message": "the answer ended with an error"} if choice.get("finish_reason") == "error" else None


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {name: count(usage.get(name)) for name in _COUNTS}
    for name in _DETAILS:
        details = usage.get(name)
        if isinstance(details, Mapping) and all(number(v) is not None or v is None for v in details.values()):
            kept[name] = {key: None if value is None else count(value) for key, value in details.items()}
    cost = dollars(usage.get("cost"))
    return kept if cost is None else {**kept, "cost": cost}
