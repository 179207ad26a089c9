"""Which models there are, and what one request to one of them gives.

Nothing here knows LiteLLM: a `ChatService` sends one request and says how it failed, and
`kbopt.proposers.pool` decides who is asked next and when.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kbopt.core.costs import Usage
from kbopt.core.errors import UserError

Message = Mapping[str, str]
"""A chat message: `{"role": "system" | "user" | "assistant", "content": text}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedModel:
    """A LiteLLM model name and its share of the requests, relative to the other models' weights."""

    name: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A model's answer. `finish` is `stop`, `length`, `content_filter` or a provider's own word.

    `text` is empty where the model said nothing, `refusal` where it did not decline.
    """

    text: str
    finish: str
    refusal: str
    usage: Usage


class RequestFailed(Exception):
    """The request may succeed later, not before `retry_after_s` seconds where the service said so."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class TimedOut(RequestFailed):
    """The model was not ready within the time limit of a request; it was asked, and may have to be paid."""


class Garbled(RequestFailed):
    """The service answered, but not in the protocol's form."""


class ModelUnusable(Exception):
    """The key or the name is refused, or the account is empty; some services say so of a single prompt."""


class Unanswerable(Exception):
    """The model will not answer this prompt: it is too long, filtered or not accepted.

    `is_service` where the fault seems to be the service's and not the prompt's.
    """

    def __init__(self, reason: str, *, is_service: bool = False) -> None:
        super().__init__(reason)
        self.is_service = is_service


class ChatService(Protocol):
    """Sends one request, without retries of its own.

    Raises `RequestFailed`, `ModelUnusable` or `Unanswerable`.
    """

    async def complete(self, model: str, messages: Sequence[Message]) -> Reply: ...


_WEIGHT = re.compile(r"^(?P<name>.+):(?P<weight>-?\d+(?:\.\d+)?)$")


def parse_models(text: str) -> tuple[WeightedModel, ...]:
    """`openai/gpt-5:2,anthropic/claude-opus-4-5` as models with weights, 1 where none is given.

    The weight is the last `:number`. A weight is positive, so the `:0` that ends some Bedrock names
    belongs to the name. Raises `UserError`.
    """
    models = tuple(_parse_model(part.strip()) for part in text.split(","))
    names = [model.name for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"--model names {', '.join(twice)} more than once. Give each model once, as NAME:WEIGHT."
        )
    return models


def _parse_model(part: str) -> WeightedModel:
    match = _WEIGHT.match(part)
    if match and float(match["weight"]) != 0:
        name, weight = match["name"], float(match["weight"])
    else:
        name, weight = part, 1.0
    if not name or name != "".join(name.split()):
        raise UserError(f"--model has {part!r} where NAME or NAME:WEIGHT is expected, as in openai/gpt-5:2.")
    if weight < 0:
        raise UserError(f"--model gives {name} the weight {weight:g}. A weight is a number above 0.")
    return WeightedModel(name=name, weight=weight)


def weighted_order(models: Sequence[WeightedModel], rng: random.Random) -> list[str]:
    """The models' names in the order in which to try them; each is first in proportion to its weight.

    Sampling without replacement by exponential keys (Efraimidis and Spirakis, 2006).
    """
    keys = {model.name: rng.random() ** (1.0 / model.weight) for model in models}
    return sorted(keys, key=lambda name: keys[name], reverse=True)
