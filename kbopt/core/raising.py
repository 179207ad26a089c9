"""Limits that the user raises after a search has begun: what holds then, what is refused, and in which words.

Pure. The options are those of `kbopt run`, and each amount is one in all, not one on top.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import get_args

from kbopt.core.errors import UserError
from kbopt.core.events import Raised
from kbopt.core.settings import Guest, SearchSettings
from kbopt.core.tally import Progress, amount
from kbopt.core.text import plural


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One of the limits of a search: its field in `Raised`, its option, and how an amount is said."""

    field: str
    option: str
    said: Callable[[float], str]
    is_shared: bool = False
    """Whether the searches of a sweep have it together where their budgets grow."""

    def of(self, settings: SearchSettings) -> float | None:
        holder = settings if self.field == "num_steps" else settings.budget
        found: float | None = getattr(holder, self.field)
        return found

    def given(self, wanted: Raised) -> float | None:
        found: float | None = getattr(wanted, self.field)
        return found


LIMITS = (
    Limit(field="num_steps", option="--num-steps", said=lambda value: plural(int(value), "step")),
    Limit(
        field="evaluations",
        option="--max-evals",
        said=lambda value: plural(int(value), "evaluation"),
        is_shared=True,
    ),
    Limit(field="usd", option="--max-usd", said=lambda value: f"{amount(value)} dollars", is_shared=True),
    Limit(field="tokens", option="--max-tokens", said=lambda value: plural(int(value), "token")),
    Limit(field="minutes", option="--max-minutes", said=lambda value: f"{value:.4g} minutes"),
)


def raised(settings: SearchSettings, wanted: Raised) -> SearchSettings:
    """What holds after `wanted`. What a budget that grows shares with others is not its own to raise."""
    grows = settings.budget.grows
    limits = {
        limit.field: value
        for limit in LIMITS
        if limit.field != "num_steps"
        and (value := limit.given(wanted)) is not None
        and not (grows and limit.is_shared)
    }
    return replace(
        settings,
        num_steps=settings.num_steps if wanted.num_steps is None else wanted.num_steps,
        budget=replace(settings.budget, **limits),  # type: ignore[arg-type]
    )


def in_force(settings: SearchSettings, raises: Iterable[Raised]) -> SearchSettings:
    """What holds after all of `raises`, in their order."""
    for one in raises:
        settings = raised(settings, one)
    return settings


def with_steps(settings: SearchSettings, wanted: Raised) -> Raised:
    """`wanted` with as many more steps as its evaluations can use, where the steps were chosen like that."""
    more = wanted.evaluations or 0
    if wanted.num_steps is not None or not _steps_follow(settings) or more <= settings.num_steps:
        return wanted
    return replace(wanted, num_steps=more)


def _steps_follow(settings: SearchSettings) -> bool:
    return settings.num_steps == settings.budget.evaluations


def changes(settings: SearchSettings, wanted: Raised) -> str:
    """What `wanted` changes of `settings`: `30 evaluations to 50 evaluations, 9 tokens to 99 tokens`."""
    found = []
    for limit in LIMITS:
        value, former = limit.given(wanted), limit.of(settings)
        is_implied = limit.field == "num_steps" and _steps_follow(settings) and value == wanted.evaluations
        if value is None or is_implied:
            continue
        if settings.budget.grows and limit.is_shared:
            found.append(f"what the sweep shares to {limit.said(value)} for each search")
        elif former is not None:
            found.append(f"{limit.said(former)} to {limit.said(value)}")
    return ", ".join(found)


def check_raise(
    settings: SearchSettings, wanted: Raised, progress: Progress, *, elapsed_s: float, name: str
) -> None:
    """Raise `UserError` for a limit that the search `name` never had, or that leaves it no more than it used.

    `settings` are those in force.
    """
    if settings.algorithm in get_args(Guest):
        raise UserError(
            f"{name} has no search of its own that could go on: its kernels came from outside "
            f"({settings.algorithm}). Start a new run, with --start FILE from its best kernel."
        )
    used = {
        "evaluations": progress.evaluations,
        "usd": progress.usd,
        "tokens": progress.tokens,
        "minutes": elapsed_s / 60.0,
    }
    for limit in LIMITS:
        value, had = limit.given(wanted), limit.of(settings)
        if value is None:
            continue
        if had is None:
            limits = [f"{one.option} {found:g}" for one in LIMITS if (found := one.of(settings)) is not None]
            raise UserError(
                f"{limit.option} {value:g}: {name} has no such limit, so there is none to raise. Those that "
                f"it has: {', '.join(limits)}."
            )
        spent = used.get(limit.field, 0.0)
        if value <= max(had, spent):
            seen = f", and {limit.said(spent)} are used" if spent else ""
            raise UserError(
                f"{limit.option} {value:g}: {name} has {limit.said(had)} already{seen}. Give more than "
                f"{max(had, spent):.6g}, in all."
            )
