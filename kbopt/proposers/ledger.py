"""Adds up what models were paid."""

from __future__ import annotations

from collections.abc import Iterable

from kbopt.core.costs import Usage


def per_model(usages: Iterable[Usage]) -> tuple[Usage, ...]:
    """One `Usage` for each model, in order of first use.

    `usd` is None where the price of one of the model's requests is not known: a part is not the sum.
    """
    totals: dict[str, Usage] = {}
    for usage in usages:
        known = totals.get(usage.model)
        totals[usage.model] = usage if known is None else _sum(known, usage)
    return tuple(totals.values())


def _sum(left: Usage, right: Usage) -> Usage:
    return Usage(
        model=left.model,
        requests=left.requests + right.requests,
        prompt_tokens=left.prompt_tokens + right.prompt_tokens,
        completion_tokens=left.completion_tokens + right.completion_tokens,
        usd=None if left.usd is None or right.usd is None else left.usd + right.usd,
        seconds=left.seconds + right.seconds,
    )
