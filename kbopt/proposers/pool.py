"""Who is asked next, and what happens while models fail.

A fault of one prompt stays with it: a service that answers 500 to one prompt and serves all others is well.
What several prompts agree on is a fault of the model.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kbopt.core.errors import InfraError, UserError
from kbopt.proposers.models import (
    ChatService,
    Garbled,
    Message,
    ModelUnusable,
    Reply,
    RequestFailed,
    TimedOut,
    Unanswerable,
    WeightedModel,
    weighted_order,
)

OnFailure = Callable[[str, RequestFailed | Unanswerable | ModelUnusable], None]

MAX_TIMEOUTS = 2
"""Requests of one prompt to one model that may exceed the time limit: each may have been paid for."""

MAX_GARBLED = 5
"""Answers to one prompt by one model that may be in no known form."""

MAX_FAULTS = 12
"""Requests of one prompt to one model that may fail while it answers others, as under a rate limit."""


@dataclass(slots=True)
class _Health:
    """How a model has been doing, or how one prompt fared with it.

    Times are of the monotonic clock, `failing_since` None while it works. `prompts` are those that failed
    since the last answer, `refused` is the one that was last refused.
    """

    answers: int = 0
    failing_since: float | None = None
    failed_at: float = 0.0
    failures: int = 0
    not_before: float = 0.0
    reason: str = ""
    prompts: set[int] = field(default_factory=set)
    refused: int | None = None
    unusable: bool = False

    @property
    def failing_s(self) -> float:
        """From the first failure of the present row to the last one."""
        return 0.0 if self.failing_since is None else self.failed_at - self.failing_since

    @property
    def is_shared(self) -> bool:
        """True where the failures are the model's: several prompts agree, or none was ever answered."""
        return len(self.prompts) > 1 or not self.answers


@dataclass(slots=True)
class _Prompt:
    """One prompt's own history. `excluded` says of the models that are not asked again why."""

    key: int
    order: list[str]
    rng: random.Random
    on_failure: OnFailure
    health: dict[str, _Health]
    excluded: dict[str, str] = field(default_factory=dict)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    is_service: bool = False


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

    async def complete(self, messages: Sequence[Message], *, seed: int, on_failure: OnFailure) -> Reply:
        """The reply to `messages` by a model that `seed` and the weights choose.

        `on_failure` hears the model and each failure. Raises `Unanswerable` once no model is left that may
        answer this prompt; `UserError` once every model is unusable; `InfraError` once those that are not
        have failed for `give_up_after_s`.
        """
        rng = random.Random(seed)
        prompt = _Prompt(
            key=hash(tuple(message["content"] for message in messages)),
            order=weighted_order(self._models, rng),
            rng=rng,
            on_failure=on_failure,
            health={model.name: _Health() for model in self._models},
        )
        while True:
            model = self._choose(prompt)
            wait_s = self._not_before(model, prompt) - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
                continue
            health = self._health[model]
            if health.is_shared and self._is_set_aside(health):
                # One request looks whether it works again; the others leave it alone meanwhile.
                health.not_before = time.monotonic() + self._set_aside_after_s
            reply = await self._asked(model, messages, prompt)
            if reply is not None:
                return reply

    async def _asked(self, model: str, messages: Sequence[Message], prompt: _Prompt) -> Reply | None:
        """The reply of one request; None where it failed in a way that another one may not."""
        try:
            async with self._slots:
                reply = await self._service.complete(model, messages)
        except RequestFailed as failure:
            prompt.on_failure(model, failure)
            self._note_failure(model, prompt, failure)
        except ModelUnusable as failure:
            prompt.on_failure(model, failure)
            self._note_refusal(model, prompt, failure)
        except Unanswerable as failure:
            prompt.on_failure(model, failure)
            raise
        else:
            self._health[model] = _Health(answers=self._health[model].answers + 1)
            return reply
        return None

    def _choose(self, prompt: _Prompt) -> str:
        """The first model that may be asked; while all are set aside, the one whose turn comes first."""
        usable = [name for name in prompt.order if not self._health[name].unusable]
        reasons = "; ".join(f"{name}: {self._health[name].reason}" for name in prompt.order)
        if not usable:
            raise UserError(f"no model can be asked. {reasons}. Check --model, its key and the account.")
        if all(self._is_down(self._health[name]) for name in usable):
            raise InfraError(f"no model has answered for {self._give_up_after_s:g} s. {reasons}")
        left = [name for name in usable if name not in prompt.excluded]
        if not left:
            raise Unanswerable("; ".join(prompt.excluded.values()), is_service=prompt.is_service)
        now = time.monotonic()
        for name in left:
            aside = self._is_set_aside(prompt.health[name]) or (
                self._health[name].is_shared and self._is_set_aside(self._health[name])
            )
            if not aside or now >= self._not_before(name, prompt):
                return name
        return min(left, key=lambda name: self._not_before(name, prompt))

    def _not_before(self, model: str, prompt: _Prompt) -> float:
        shared = self._health[model]
        return max(prompt.health[model].not_before, shared.not_before if shared.is_shared else 0.0)

    def _is_down(self, health: _Health) -> bool:
        return health.is_shared and health.failing_s >= self._give_up_after_s

    def _is_set_aside(self, health: _Health) -> bool:
        announced_s = health.not_before - health.failed_at
        return max(health.failing_s, announced_s) >= self._set_aside_after_s and health.failures > 0

    def _note_refusal(self, model: str, prompt: _Prompt, failure: ModelUnusable) -> None:
        """A model that has answered is given up only where two prompts in a row hear the same."""
        health = self._health[model]
        others_heard_it = health.refused not in (None, prompt.key)
        health.reason = str(failure)
        health.refused = prompt.key
        health.unusable = not health.answers or others_heard_it
        prompt.excluded[model] = f"{model} refuses: {failure}"

    def _note_failure(self, model: str, prompt: _Prompt, failure: RequestFailed) -> None:
        own, shared = prompt.health[model], self._health[model]
        if own.failing_since is None:
            own.answers = shared.answers  # by which later answers to others are told
        self._count(own, failure, prompt.rng)
        self._count(shared, failure, prompt.rng)
        shared.prompts.add(prompt.key)
        if shared.is_shared:
            # Whoever found out that the model still fails lets another one look next.
            own.not_before = max(own.not_before, shared.not_before + self._set_aside_after_s / 20)
        match failure:
            case TimedOut():
                kind, most = "timed out", MAX_TIMEOUTS
            case Garbled():
                kind, most = "garbled", MAX_GARBLED
            case _:
                kind, most = "failed", MAX_FAULTS
        prompt.counts[model, kind] += kind != "failed" or shared.answers > own.answers
        if prompt.counts[model, kind] >= most or own.failing_s >= self._give_up_after_s:
            prompt.excluded[model] = f"{model} failed {own.failures} times for this prompt: {failure}"
            prompt.is_service = True

    def _count(self, health: _Health, failure: RequestFailed, rng: random.Random) -> None:
        now = time.monotonic()
        # Nobody asked for so long that the old failures say nothing about the time between.
        is_stale = now - health.failed_at > 2 * self._give_up_after_s
        if health.failing_since is None or is_stale:
            health.failing_since, health.failures = now, 0
            health.prompts.clear()
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
