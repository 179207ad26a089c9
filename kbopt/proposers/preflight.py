"""What a search with language models will cost, told before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kbopt.core.settings import SearchSettings
from kbopt.core.text import plural
from kbopt.proposers.litellm_service import Price, price_of
from kbopt.proposers.models import WeightedModel

PROMPT_TOKENS = 5_000
COMPLETION_TOKENS = 4_000
"""Tokens of one proposal: instructions, task, parent, two exemplars and feedback, answered with a kernel.

Rounded from prompts of kbopt's own templates; models that think before they answer use more.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Expected requests and their cost. `usd` covers the models whose price is known, None for none of them.

    `unpriced` names the others.
    """

    proposals: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    unpriced: tuple[str, ...]


def estimate(
    settings: SearchSettings,
    models: Sequence[WeightedModel],
    prices: Mapping[str, Price | None],
    *,
    prompt_tokens: int = PROMPT_TOKENS,
    completion_tokens: int = COMPLETION_TOKENS,
) -> Estimate:
    """The cost of every proposal being asked of a model, at `prompt_tokens` and `completion_tokens` each.

    A summarizer adds one request for each step.
    """
    requests = settings.num_total_proposals + (settings.num_steps if settings.uses_summarizer else 0)
    total_weight = sum(model.weight for model in models)
    usd: float | None = None
    for model in models:
        price = prices[model.name]
        if price is not None:
            one = prompt_tokens * price.prompt_usd + completion_tokens * price.completion_usd
            usd = (usd or 0.0) + requests * model.weight / total_weight * one
    return Estimate(
        proposals=settings.num_total_proposals,
        prompt_tokens=requests * prompt_tokens,
        completion_tokens=requests * completion_tokens,
        usd=usd,
        unpriced=tuple(model.name for model in models if prices[model.name] is None),
    )


def preflight(settings: SearchSettings, models: Sequence[WeightedModel]) -> str:
    """One line: proposals, evaluations, tokens and dollars that the settings imply."""
    expected = estimate(settings, models, {model.name: price_of(model.name) for model in models})
    budget = settings.budget
    evaluations = min(expected.proposals, budget.evaluations or expected.proposals)
    parts = [
        f"{plural(expected.proposals, 'proposal')}, about {plural(evaluations, 'evaluation')}",
        f"about {_thousands(expected.prompt_tokens)} prompt and "
        f"{_thousands(expected.completion_tokens)} completion tokens",
    ]
    if expected.usd is not None:
        parts.append(f"about ${expected.usd:.2f}")
    if expected.unpriced:
        parts.append(f"no price known for {', '.join(expected.unpriced)}")
    has_prices = len(expected.unpriced) < len(models)
    if budget.usd is not None and expected.unpriced:
        parts.append(
            f"the limit of ${budget.usd:g} counts these only where the service reports what they cost: "
            "--max-tokens counts them all"
        )
    limits = [
        f"${budget.usd:g}" if budget.usd is not None and has_prices else "",
        f"{_thousands(budget.tokens)} tokens" if budget.tokens is not None else "",
        f"{budget.minutes:g} minutes" if budget.minutes is not None else "",
    ]
    if any(limits):
        parts.append(f"stops at {' or '.join(limit for limit in limits if limit)}")
    return "; ".join(parts) + "."


def _thousands(count: int) -> str:
    return f"{count / 1000:,.0f}k" if count >= 10_000 else f"{count:,}"
