"""How sure a ratio of times is: intervals, and what differs between processes. Pure functions."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

import numpy as np

_BOOTSTRAP_ROUNDS = 1000
WIDEST = math.log(1000.0)
"""An interval so much wider each way says that calls so short cannot be compared, in numbers that exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """By how much one source's times differ between processes, which no repetition in one of them shows.

    Standard deviations of the median call: `call_ms` and `call_share` of it, together.
    """

    call_ms: float = 0.0
    call_share: float = 0.0

    def log_ratio(self, *medians_ms: float) -> float:
        """Standard deviation of the logarithm of a quotient of medians, by the delta method."""
        return math.hypot(*(math.hypot(self.call_ms / ms, self.call_share) for ms in medians_ms))


NO_SCATTER = Scatter()
CPU_SCATTER = Scatter(call_ms=0.03, call_share=0.055)
"""Which pages of memory a process has is decided once: benchmarks/results/2026-11-29-cpu-identity.md."""
GPU_SCATTER = Scatter(call_ms=0.0005, call_share=0.01)
"""Where its memory lies: benchmarks/results/2026-11-24-cuda-verdicts.md."""
LAUNCH_SCATTER = Scatter(call_ms=0.03, call_share=0.1)
"""On a GPU that waits for kernels to be launched: benchmarks/results/2026-11-25-volleys-of-one.md."""
LATENCY_SCATTER = Scatter(call_ms=0.002, call_share=0.03)
"""Of one synchronised call: which cores and which memory a process meets."""


def ratio_interval(
    reference_ms: Sequence[float],
    kernel_ms: Sequence[float],
    rng: random.Random,
    scatter: Scatter = NO_SCATTER,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of median(reference_ms) / median(kernel_ms), wider by `scatter`."""
    generator = np.random.default_rng(rng.getrandbits(64))
    above, below = (
        np.median(generator.choice(np.asarray(samples), (_BOOTSTRAP_ROUNDS, len(samples))), axis=1)
        for samples in (reference_ms, kernel_ms)
    )
    low, high = np.quantile(above / below, (0.025, 0.975))
    reference, kernel = median(reference_ms), median(kernel_ms)
    between = min(WIDEST, 1.96 * scatter.log_ratio(reference, kernel))
    middle = reference / kernel
    down = math.hypot(math.log(middle / low), between)
    up = math.hypot(math.log(high / middle), between)
    return middle * math.exp(-down), middle * math.exp(up)


def median_variance(times_ms: Sequence[float]) -> float:
    """Variance of the logarithm of the median: its standard error is 1.25 times that of a mean, here from the
    quartiles, which lie 1.35 standard deviations apart, so that outliers do not count.
    """
    low, middle, high = quantiles(times_ms, n=4)
    return (1.25 * (high - low) / 1.35 / middle) ** 2 / len(times_ms)


def drift(samples_ms: Sequence[float]) -> float:
    """Median of the later half over that of the earlier half; 1.0 is a steady clock."""
    half = len(samples_ms) // 2
    return median(samples_ms[half:]) / median(samples_ms[:half]) if half else 1.0
