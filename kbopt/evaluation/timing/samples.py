"""Times of single calls from interleaved blocks. Pure functions.

Times are in milliseconds. `wall` is the judge's clock around a block of calls. A CPU has no other. On a GPU
`native` is the worker's clock around each call, and *hidden* time is what the judge finds beyond that. See
docs/decisions/0022-whose-clock-counts.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from kbopt.core.text import plural
from kbopt.evaluation.timing.intervals import (
    CPU_SCATTER,
    GPU_SCATTER,
    LAUNCH_SCATTER,
    WAITING_SCATTER,
    Scatter,
    median_variance,
)

_LEAST_MS = CPU_SCATTER.call_ms
"""Milliseconds of a call on a CPU at least: shorter ones differ by as much between processes."""
_FEWEST_SETTLED = 20
"""Single calls of each model at least before a timing may end early."""
_AGREEMENT = 1.3
"""The wall clock may show this many times the native clock's time. Hidden work shows as 2 and more."""
_LATENCY_SLACK_MS = 0.05
"""Milliseconds by which the time of messages around a call may differ between processes that do the same."""
_LAUNCHES_MS = 1.0
"""Milliseconds of a reference that may wait for launches. A faster one has so few kernels that its stream
holds them all while they are queued."""
_LAUNCH_SHARE = 0.8
"""A launch-bound call would take less than this share of its time if its kernels were queued beforehand."""
_LAUNCH_LEAST_MS = 0.01
"""Such a call would take at least this many milliseconds less."""
_WAITS_NOTE = (
    "A call waits for the device (synchronize, .item(), cudaFree), or queues more than a thousand kernels: "
    "its time holds what that costs."
)
_LAUNCH_NOTE = (
    "Queued beforehand, a call would take {queued_ms:.3g} of its {native_ms:.3g} ms: the rest is the "
    "launching of kernels. Fewer of them save it, or a CUDA graph."
)
_SLOWED_NOTE = (
    "Beside this candidate the reference took longer than before its code was loaded: {slowed:.2f} times "
    "what counts."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The times of one block of calls: `wall_ms` of all of them together, and on a GPU `native_ms` of each.

    On a CPU the wall time is less the time for which other processes had the core, and `cpu_ms` is the
    processor time of the whole sandbox until it was paused. `is_late` says that not all calls of a batch
    were queued when the judge opened the gate: they wait for the device, or queue more than a thousand
    kernels.
    """

    native_ms: tuple[float, ...] = ()
    wall_ms: float
    cpu_ms: float = 0.0
    is_late: bool = False

    @property
    def around_ms(self) -> float:
        """Milliseconds of wall time outside the calls by the worker's clock, on a GPU."""
        return self.wall_ms - sum(self.native_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """The time of a batch besides its calls: `fixed_ms` once and `per_call_ms` for each call."""

    fixed_ms: float
    per_call_ms: float

    @classmethod
    def through(cls, short: int, short_ms: float, long: int, long_ms: float) -> Overhead:
        """Return the line through the times of batches of two lengths. Its slope is never negative."""
        slope = max(0.0, (long_ms - short_ms) / (long - short)) if long > short else 0.0
        return cls(fixed_ms=short_ms - short * slope, per_call_ms=slope)

    def of(self, num_calls: int) -> float:
        return self.fixed_ms + num_calls * self.per_call_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """A call on a GPU by both clocks, in milliseconds.

    `native_ms` is the median single call by the worker's clock. The others are lower bounds of the hidden
    time per call, in batches of one call and in longer ones. A CPU has one clock, and nothing is hidden.
    """

    native_ms: float
    hidden_single_ms: float = 0.0
    hidden_longer_ms: float = 0.0

    @property
    def wall_ms(self) -> float:
        """Milliseconds of a call by the judge's clock, which the worker cannot influence."""
        return self.native_ms + max(0.0, self.hidden_single_ms, self.hidden_longer_ms)

    def agree(self, slack_ms: float) -> bool:
        """Whether the hidden time is at most 30 % of a call plus `slack_ms`."""
        return self.wall_ms <= _AGREEMENT * self.native_ms + slack_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Times of single calls of both models, in milliseconds."""

    kernel_ms: tuple[float, ...]
    reference_ms: tuple[float, ...]

    @property
    def speedup(self) -> float:
        return median(self.reference_ms) / median(self.kernel_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(Times):
    """Both models' times in a session, and whether they can be believed.

    `kernel_ms` includes the hidden time. On a GPU `slowed` is how many times as long the reference took
    beside the candidate as is believed, `waits` and `reference_waits` say whose calls wait for the device,
    and `queued_ms` is a call of the candidate in its shortest batch of one. `settled` says that the calls
    ended because their ratio was known well enough. On a CPU all of these have their defaults.
    """

    clocks: Clocks
    clocks_agree: bool = True
    slowed: float = 1.0
    waits: bool = False
    reference_waits: bool = False
    queued_ms: float = 0.0
    settled: bool = False

    @property
    def is_launch_bound(self) -> bool:
        """Whether the device waits for kernels to be launched."""
        native_ms = self.clocks.native_ms
        return 0 < self.queued_ms < min(_LAUNCH_SHARE * native_ms, native_ms - _LAUNCH_LEAST_MS)

    @property
    def gpu_scatters(self) -> tuple[Scatter, Scatter]:
        """The scatter of the candidate's times on a GPU, and that of the reference's.

        If the candidate is launch-bound, so may be a reference that takes `_LAUNCHES_MS` or longer.
        """
        ours = WAITING_SCATTER if self.waits else GPU_SCATTER
        theirs = WAITING_SCATTER if self.reference_waits else GPU_SCATTER
        if not self.is_launch_bound:
            return ours, theirs
        return LAUNCH_SCATTER, LAUNCH_SCATTER if median(self.reference_ms) >= _LAUNCHES_MS else theirs

    @property
    def notes(self) -> list[str]:
        """Sentences for the reader of the result."""
        notes = [_WAITS_NOTE] if self.waits else []
        if self.is_launch_bound:
            notes.append(_LAUNCH_NOTE.format(queued_ms=self.queued_ms, native_ms=self.clocks.native_ms))
        if self.slowed > 1:
            notes.append(_SLOWED_NOTE.format(slowed=self.slowed))
        return notes

    def notes_on_number(self, timed: int) -> list[str]:
        """A sentence for sessions on a GPU that ended before so many calls were timed."""
        num = len(self.kernel_ms)
        if num >= timed:
            return []
        why = "their ratio was known to half a percent" if self.settled else "the time for slow calls was up"
        return [f"{plural(num, 'timed call')} instead of {timed}: {why}."]


def read_latency(pairs: Sequence[tuple[Block, Block]]) -> Times:
    """Return the times of single synchronised calls on a GPU, as a caller sees them.

    They come from pairs of blocks of one call, the reference's block and the candidate's.

    The candidate's times grow by what the judge's clock shows around its calls and not around the
    reference's, because a candidate can make the worker's clock stand still.
    """
    theirs, ours = zip(*pairs, strict=True)
    hidden_ms = hidden_around_ms(theirs, ours) - _LATENCY_SLACK_MS
    return Times(
        kernel_ms=tuple(block.native_ms[0] + max(0.0, hidden_ms) for block in ours),
        reference_ms=tuple(block.native_ms[0] for block in theirs),
    )


def undisturbed_ns(wall_ns: int, waited_ns: int, cpu_ns: int) -> int:
    """Return the wall time less the time for which other processes had the core.

    A candidate can make its own threads wait, so a wait is believed as far as processor time leaves room.
    """
    return wall_ns - min(waited_ns, max(0, wall_ns - cpu_ns))


def cpu_times_ms(blocks: Sequence[Block], empty: Sequence[Block], threads: int) -> tuple[float, ...]:
    """Return the times of single calls on a CPU, by the judge's clock less the median of `empty` requests.
    With one thread a call takes at least its processor time: another core can work while the answer is on its
    way, and the judge's clock does not show that. With more threads it cannot be told from threads that wait
    for the next parallel region.
    """
    wall_ms = median(block.wall_ms for block in empty)
    cpu_ms = median(block.cpu_ms for block in empty)
    return tuple(
        max(
            _LEAST_MS,
            block.wall_ms - wall_ms,
            block.cpu_ms - cpu_ms if threads == 1 else 0.0,
        )
        for block in blocks
    )


def single_ms(singles: Sequence[Block]) -> tuple[float, ...]:
    """Return the times of single calls on a GPU, by the worker's clock."""
    return tuple(block.native_ms[0] for block in singles)


def is_settled(times: Times, share: float) -> bool:
    """Return whether the standard error of the ratio of both models is at most `share` of it."""
    both = times.reference_ms, times.kernel_ms
    return min(map(len, both)) >= _FEWEST_SETTLED and sum(map(median_variance, both)) <= share**2


def hidden_around_ms(reference: Sequence[Block], kernel: Sequence[Block]) -> float:
    """Return the milliseconds that the judge's clock shows around the candidate's calls alone, clearly.

    It is the difference between a quartile of the candidate's blocks and the median of the reference's.
    """
    theirs_ms, ours_ms = (
        quantiles([block.around_ms for block in blocks], n=4) for blocks in (reference, kernel)
    )
    return ours_ms[0] - theirs_ms[1]
