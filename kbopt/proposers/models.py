"""Which models are asked, how often, and what happens while they fail.

Nothing here knows LiteLLM: a `ChatService` sends one request and says how it failed, and the pool decides
who is asked next and when.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kbopt.core.errors import InfraError, UserError
from kbopt.core.types import Usage

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


class ModelUnusable(Exception):
    """The model will not answer anyone in this run: the key is refused or the name is not known."""


class Unanswerable(Exception):
    """The model will not answer this prompt: it is too long, filtered or not accepted."""


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


@dataclass(slots=True)
class _Health:
    """How a model has been doing; times are of the monotonic clock, `failing_since` None while it works."""

    failing_since: float | None = None
    failed_at: float = 0.0
    failures: int = 0
    not_before: float = 0.0
    reason: str = ""
    unusable: bool = False

    @property
    def failing_s(self) -> float:
        """From the first failure of the present row to the last one."""
        return 0.0 if self.failing_since is None else self.failed_at - self.failing_since


class ModelPool:
    """Asks one of `models` for each prompt and outlasts their failures.

    A failed request is sent again to the same model, with exponential backoff from `give_up_after_s`/600
    to `give_up_after_s`/10 seconds, and not before the time that the service gave. A model that has
    failed for `give_up_after_s`/10 seconds is set aside: others are asked in its place, and one request
    now and then finds out whether it works again. At most `max_concurrent` requests are under way.
    """

    def __init__(
        self,
        service: ChatService,
        models: Sequence[WeightedModel],
        *,
        max_concurrent: int,
        give_up_after_s: float,
    ) -> None:
        self._service = service
        self._models = tuple(models)
        self._slots = asyncio.Semaphore(max_concurrent)
        self._give_up_after_s = give_up_after_s
        self._set_aside_after_s = give_up_after_s / 10
        self._health = {model.name: _Health() for model in models}

    async def complete(
        self, messages: Sequence[Message], *, seed: int, on_failure: Callable[[str, str], None]
    ) -> Reply:
        """The reply to `messages` by a model that `seed` and the weights choose.

        `on_failure` hears the model and the reason of each request that failed. Raises `Unanswerable`;
        `UserError` once every model is unusable; `InfraError` once those that are not have failed for
        `give_up_after_s`.
        """
        rng = random.Random(seed)
        order = weighted_order(self._models, rng)
        while True:
            model = self._choose(order)
            health = self._health[model]
            wait_s = health.not_before - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
                continue
            if self._is_set_aside(health):
                # One request looks whether it works again; the others leave it alone meanwhile.
                health.not_before = time.monotonic() + self._set_aside_after_s
            try:
                async with self._slots:
                    reply = await self._service.complete(model, messages)
            except RequestFailed as failure:
                on_failure(model, str(failure))
                self._note_failure(self._health[model], failure, rng)
            except Unanswerable as failure:
                on_failure(model, str(failure))
                raise
            except ModelUnusable as failure:
                on_failure(model, str(failure))
                self._health[model] = _Health(unusable=True, reason=str(failure))
            else:
                self._health[model] = _Health()
                return reply

    def _choose(self, order: Sequence[str]) -> str:
        """The first model that may be asked; while all are set aside, the one whose turn comes first."""
        healths = [(name, self._health[name]) for name in order]
        usable = [(name, health) for name, health in healths if not health.unusable]
        reasons = "; ".join(f"{name}: {health.reason}" for name, health in healths)
        if not usable:
            raise UserError(f"no model can be asked. {reasons}. Check --model, its key and the account.")
        if all(health.failing_s >= self._give_up_after_s for _, health in usable):
            raise InfraError(f"no model has answered for {self._give_up_after_s:g} s. {reasons}")
        now = time.monotonic()
        for name, health in usable:
            if not self._is_set_aside(health) or now >= health.not_before:
                return name
        return min(usable, key=lambda pair: pair[1].not_before)[0]

    def _is_set_aside(self, health: _Health) -> bool:
        announced_s = health.not_before - health.failed_at
        return max(health.failing_s, announced_s) >= self._set_aside_after_s and health.failures > 0

    def _note_failure(self, health: _Health, failure: RequestFailed, rng: random.Random) -> None:
        now = time.monotonic()
        # Nobody asked for so long that the old failures say nothing about the time between.
        is_stale = now - health.failed_at > 2 * self._give_up_after_s
        if health.failing_since is None or is_stale:
            health.failing_since, health.failures = now, 0
        longest_s = self._set_aside_after_s * 0.9
        backoff_s = self._give_up_after_s / 600 * 2.0 ** min(health.failures, 16)
        backoff_s = min(backoff_s, longest_s) * rng.uniform(0.5, 1.0)
        # Asked once more before giving up, whatever waiting time the service announced.
        until_end_s = health.failing_since + self._give_up_after_s - now
        announced_s = min(failure.retry_after_s or 0.0, until_end_s)
        health.failed_at = now
        health.failures += 1
        health.reason = str(failure)
        health.not_before = now + max(backoff_s, announced_s)
