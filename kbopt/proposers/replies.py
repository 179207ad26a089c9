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
        response["error"] = {**given, "code": count(given.get("code")) or 500}
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
        case {"text": text} | {"value": text}:
            return text_of(text)
        case _:
            return ""


def count(value: object) -> int:
    """`value` as a number of tokens, 0 where it is none."""
    return int(number(value) or 0)


def number(value: object) -> float | None:
    """`value`, which may be a string, as a finite number that is not negative; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        read = float(value)
    except (ValueError, OverflowError):
        return None
    return read if math.isfinite(read) and read >= 0 else None


def _message(choice: dict[str, Any]) -> dict[str, Any]:
    given = choice.get("message")
    message = dict(given) if isinstance(given, Mapping) else {"content": choice.get("text")}
    content = message.get("content")
    thoughts = (text_of(message.pop(name, None)) for name in _REASONING)
    return {
        **message,
        "reasoning_content": next(filter(None, list(thoughts)), None),
        "role": message.get("role") or "assistant",
        "content": None if content is None else text_of(content),
    }


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
    cost = number(usage.get("cost"))
    return kept if cost is None else {**kept, "cost": cost}
