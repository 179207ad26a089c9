"""What models and rented containers cost."""

from __future__ import annotations

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
