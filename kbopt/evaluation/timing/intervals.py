"""Confidence intervals of a ratio of times, and the scatter between processes. Pure functions."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

import numpy as np

_BOOTSTRAP_ROUNDS = 1000
"""Resamples of a bootstrap: the usual number for a 95 % interval."""
WIDEST = math.log(1000.0)
"""Limit of an interval's half width, as a logarithm: 1000 times up and down. An interval this wide says that
the calls are too short to be compared, and a limit keeps its ends finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """How much the median call of one source differs between processes, which more calls in one do not show.

    The standard deviation is `call_ms` milliseconds and `call_share` of the call, added in quadrature.
    """

    call_ms: float = 0.0
    call_share: float = 0.0

    def of_log(self, median_ms: float) -> float:
        """Return the standard deviation of the logarithm of a median (delta method)."""
        return math.hypot(self.call_ms / median_ms, self.call_share)


NO_SCATTER = Scatter()
CPU_SCATTER = Scatter(call_ms=0.03, call_share=0.055)
"""A process keeps the pages of memory that it got first: benchmarks/results/2026-11-29-cpu-identity.md."""
GPU_SCATTER = Scatter(call_ms=0.0005, call_share=0.01)
"""The device's memory lies elsewhere in each process: benchmarks/results/2026-11-24-cuda-verdicts.md."""
LAUNCH_SCATTER = Scatter(call_ms=0.03, call_share=0.2)
"""The GPU waits for kernels to be launched, since a call has more than a stream holds. Two processes took up
to 1.5 times as long as each other for the same: benchmarks/results/2026-11-30-launches.md."""
WAITING_SCATTER = Scatter(call_ms=0.03, call_share=0.01)
"""A call that waits for the device launches its kernels while the clock runs:
benchmarks/results/2026-12-01-waiting.md."""
LATENCY_SCATTER = Scatter(call_ms=0.002, call_share=0.03)
"""Latency of one synchronised call on a GPU. Each process gets other cores and other memory."""


def ratio_interval(
    reference_ms: Sequence[float],
    kernel_ms: Sequence[float],
    rng: random.Random,
    scatter: Scatter = NO_SCATTER,
    reference_scatter: Scatter | None = None,
) -> tuple[float, float]:
    """Return the ends of the 95 % interval of median(reference_ms) / median(kernel_ms).

    It is a percentile bootstrap over the calls, widened by `scatter` in quadrature, on the logarithmic scale.
    If `reference_scatter` is given, that of the reference's times is another.
    """
    generator = np.random.default_rng(rng.getrandbits(64))
    above, below = (
        np.median(generator.choice(np.asarray(samples), (_BOOTSTRAP_ROUNDS, len(samples))), axis=1)
        for samples in (reference_ms, kernel_ms)
    )
    low, high = np.quantile(above / below, (0.025, 0.975))
    reference, kernel = median(reference_ms), median(kernel_ms)
    of_reference = (reference_scatter or scatter).of_log(reference)
    between = min(WIDEST, 1.96 * math.hypot(of_reference, scatter.of_log(kernel)))
    middle = reference / kernel
    down = math.hypot(math.log(middle / low), between)
    up = math.hypot(math.log(high / middle), between)
    return middle * math.exp(-down), middle * math.exp(up)


def median_variance(times_ms: Sequence[float]) -> float:
    """Return the variance of the logarithm of the median of at least two times.

    For normal times the median's standard error is 1.25 times that of the mean. The standard deviation comes
    from the quartiles, which lie 1.35 standard deviations apart: outliers do not change it.
    """
    low, middle, high = quantiles(times_ms, n=4)
    return (1.25 * (high - low) / 1.35 / middle) ** 2 / len(times_ms)


def drift(samples_ms: Sequence[float]) -> float:
    """Return the median of the later half over that of the earlier half. 1.0 means no drift."""
    half = len(samples_ms) // 2
    return median(samples_ms[half:]) / median(samples_ms[:half]) if half else 1.0
