"""What models and rented containers cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one model was paid for. `usd` is None where the model's price is not known."""

    model: str
    requests: int = 1
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = 0.0
    seconds: float = 0.0

    def plus(self, other: Usage) -> Usage:
        """The sum for one model. `usd` is None if one of the prices is not known: a part is not the sum."""
        return Usage(
            model=self.model,
            requests=self.requests + other.requests,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            usd=None if self.usd is None or other.usd is None else self.usd + other.usd,
            seconds=self.seconds + other.seconds,
        )


def per_model(usages: Iterable[Usage]) -> tuple[Usage, ...]:
    """One `Usage` for each model, in order of first use."""
    totals: dict[str, Usage] = {}
    for usage in usages:
        known = totals.get(usage.model)
        totals[usage.model] = known.plus(usage) if known else usage
    return tuple(totals.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rent:
    """Seconds of rented containers with one type of GPU, and their price in US dollars."""

    gpu: str
    seconds: float
    usd: float

    def plus(self, other: Rent) -> Rent:
        """The sum of two rents of the same GPU."""
        return Rent(gpu=self.gpu, seconds=self.seconds + other.seconds, usd=self.usd + other.usd)

    def share(self, of: int) -> Rent:
        """One of `of` equal parts."""
        return Rent(gpu=self.gpu, seconds=self.seconds / of, usd=self.usd / of)
