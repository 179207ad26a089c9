"""Times of single calls from interleaved blocks, by the worker's clock and the judge's. Pure functions.

Times are in milliseconds. `native` is the worker's clock around each call, `wall` the judge's clock around a
block of calls. The overhead of a block is what an empty block takes. *Hidden* time is what the judge's clock
shows beyond the worker's times and the overhead. See docs/decisions/0022-two-clocks.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

import numpy as np

from kbopt.evaluation.timing.intervals import median_variance

_BOOTSTRAP_ROUNDS = 1000
_CLOCK_SLACK_MS = 0.005
"""Milliseconds per call by which the clocks may differ on a CPU without charge."""
_QUIET = 0.05
"""A block is quiet if other processes took at most this share of its wall time."""
_FEWEST_QUIET = 5
"""Quiet blocks from which on only these are compared: quartiles of fewer say little."""
_UNUSUAL = 1.25
"""A call that was displaced is corrected if it took more than this many times the median of quiet calls."""
_LEAST_SHARE = 0.25
"""A corrected call keeps at least this share of its time if too few quiet calls show what is usual."""
_FEWEST_SETTLED = 20
"""Single calls of each model at least before a timing may end early."""
_AGREEMENT = 1.3
"""The wall clock may show this many times the native clock's time. Hidden work shows as 2 and more."""
_LATENCY_SLACK_MS = 0.05
"""Milliseconds by which the time of messages around a call may differ between processes that do the same."""
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
    """The times of one block of calls: `native_ms` of each call, and `wall_ms` of all of them together.

    `displaced_ms` is the part of the wall time that the machine gave to other processes, as
    `CpuWorker._displaced` finds it. `cpu_ms` is the processor time of the whole sandbox until it was paused.
    `is_late` says that not all calls of a batch were queued when the judge opened the gate: they wait for the
    device, or queue more than a thousand kernels.
    """

    native_ms: tuple[float, ...]
    wall_ms: float
    displaced_ms: float = 0.0
    cpu_ms: float = 0.0
    is_late: bool = False

    @property
    def around_ms(self) -> float:
        """Milliseconds of wall time outside the calls by the worker's clock, waits for a core included.

        A wait inside a call is in both clocks. To take `displaced_ms` off would therefore make the overhead
        of long calls on a busy machine negative, and would forgive a worker whose clock stands still.
        """
        return self.wall_ms - sum(self.native_ms)

    @property
    def outside_ms(self) -> float:
        """The same without all waits for a core. It serves for longer blocks, which are seldom quiet."""
        return self.around_ms - self.displaced_ms

    @property
    def is_quiet(self) -> bool:
        """Whether other processes took at most the share `_QUIET` of the block's wall time."""
        return self.displaced_ms <= _QUIET * self.wall_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """The time of a block besides its calls: `fixed_ms` once and `per_call_ms` for each call."""

    fixed_ms: float
    per_call_ms: float

    @classmethod
    def through(cls, short: int, short_ms: float, long: int, long_ms: float) -> Overhead:
        """Return the line through the times of blocks of two lengths. Its slope is never negative."""
        slope = max(0.0, (long_ms - short_ms) / (long - short)) if long > short else 0.0
        return cls(fixed_ms=short_ms - short * slope, per_call_ms=slope)

    def of(self, num_calls: int) -> float:
        return self.fixed_ms + num_calls * self.per_call_ms

    def as_seen_in(self, reference: Sequence[Block]) -> Overhead:
        """Return the overhead with the same slope through the single calls of the reference in this session.

        The reference's worker is trusted and does the same work around its calls, at the same time. The lower
        quartile counts, as in `_hidden_single_ms`, because waits for a core only add.
        """
        return Overhead(
            fixed_ms=_around_quartiles(reference)[0] - self.per_call_ms,
            per_call_ms=self.per_call_ms,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """A call by both clocks, in milliseconds.

    `native_ms` is the median single call by the worker's clock. The others are lower bounds of the hidden
    time per call, in blocks of one call and in longer blocks. On a GPU the blocks are batches.
    """

    native_ms: float
    hidden_single_ms: float
    hidden_longer_ms: float

    @property
    def wall_ms(self) -> float:
        """Milliseconds of a call by the judge's clock, which the worker cannot influence."""
        return self.native_ms + max(0.0, self.hidden_single_ms, self.hidden_longer_ms)

    def agree(self, slack_ms: float) -> bool:
        """Whether the hidden time is at most 30 % of a call plus `slack_ms`."""
        return self.wall_ms <= _AGREEMENT * self.native_ms + slack_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Both models' times of single calls in milliseconds, and whether they can be believed.

    `kernel_ms` includes the hidden time. `is_busy` says that too few blocks were quiet, so that the clocks
    may disagree by chance. On a GPU `slowed` is how many times as long the reference took beside the
    candidate as is believed, `waits` says that the candidate's calls wait for the device, and `queued_ms` is
    a call of the candidate in its shortest batch of one. On a CPU `queued_ms` is 0.
    """

    kernel_ms: tuple[float, ...]
    reference_ms: tuple[float, ...]
    clocks: Clocks
    clocks_agree: bool
    is_busy: bool = False
    slowed: float = 1.0
    waits: bool = False
    queued_ms: float = 0.0

    @property
    def is_launch_bound(self) -> bool:
        """Whether the device waits for kernels to be launched."""
        native_ms = self.clocks.native_ms
        return 0 < self.queued_ms < min(_LAUNCH_SHARE * native_ms, native_ms - _LAUNCH_LEAST_MS)

    @property
    def notes(self) -> list[str]:
        """Sentences for the reader of the result."""
        notes = [_WAITS_NOTE] if self.waits else []
        if self.is_launch_bound:
            notes.append(_LAUNCH_NOTE.format(queued_ms=self.queued_ms, native_ms=self.clocks.native_ms))
        if self.slowed > 1:
            notes.append(_SLOWED_NOTE.format(slowed=self.slowed))
        return notes


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Both models' times in milliseconds of single synchronised calls on a GPU, as a caller sees them."""

    kernel_ms: tuple[float, ...]
    reference_ms: tuple[float, ...]


def read_latency(pairs: Sequence[tuple[Block, Block]]) -> Latency:
    """Return the latencies from pairs of blocks of one call, the reference's block and the candidate's.

    The candidate's times grow by what the judge's clock shows around its calls and not around the
    reference's, because a candidate can make the worker's clock stand still.
    """
    theirs, ours = zip(*pairs, strict=True)
    hidden_ms = _around_quartiles(ours)[0] - _around_quartiles(theirs)[1] - _LATENCY_SLACK_MS
    return Latency(
        kernel_ms=tuple(block.native_ms[0] + max(0.0, hidden_ms) for block in ours),
        reference_ms=tuple(block.native_ms[0] for block in theirs),
    )


def read_session(
    reference: Sequence[Block],
    singles: Sequence[Block],
    longer: Sequence[tuple[Block, Block]],
    calibrated: Overhead,
    *,
    single_threaded: bool = False,
) -> Session:
    """Return the times of a session on a CPU, from single calls of both models and from longer blocks.

    `longer` holds pairs of a block of the reference and one of the candidate, of the same length and inputs.
    Hidden time is always added to the candidate's times, so that hiding a little gains nothing. The clocks
    disagree only if the hidden time is certain, by the noise of this session. With `single_threaded`
    processor time outside the calls is added as well: another core can work while the answer is on its way,
    and the wall clock does not show that.
    """
    theirs, ours = _comparable(reference, singles)
    overhead = calibrated.as_seen_in(theirs)
    clocks = read_clocks(ours, longer, overhead)
    hidden_ms = max(0.0, clocks.hidden_single_ms - _CLOCK_SLACK_MS)
    if single_threaded:
        hidden_ms = max(hidden_ms, _hidden_cpu_ms(theirs, ours) - _CLOCK_SLACK_MS)
    slack_ms = _CLOCK_SLACK_MS + overhead_spread_ms(theirs) + _uncertainty_ms(theirs, ours)
    return Session(
        kernel_ms=tuple(ms + hidden_ms for ms in undisturbed_ms(singles, overhead)),
        reference_ms=tuple(undisturbed_ms(reference, overhead)),
        clocks=clocks,
        clocks_agree=clocks.agree(slack_ms),
        is_busy=ours is singles,
    )


def median_ms(singles: Sequence[Block]) -> float:
    """Return the median single call in milliseconds by the worker's clock."""
    return median(block.native_ms[0] for block in singles)


def is_settled(reference: Sequence[Block], singles: Sequence[Block], share: float) -> bool:
    """Return whether the standard error of the ratio of both models is at most `share` of it."""
    if min(len(reference), len(singles)) < _FEWEST_SETTLED:
        return False
    times = ([block.native_ms[0] for block in blocks] for blocks in (reference, singles))
    return sum(map(median_variance, times)) <= share**2


def undisturbed_ms(singles: Sequence[Block], overhead: Overhead) -> list[float]:
    """Return the single calls in milliseconds by the worker's clock, corrected for other processes' time.

    Other processes may have displaced a block before or after its call. So only a call that is unusually long
    next to the quiet ones is shortened, by the judge's clock, and to no less than the usual time. A candidate
    can read how long it waited and report a short time only then, so an unusually short call is lengthened.
    """
    quiet = [block.native_ms[0] for block in singles if block.is_quiet]
    usual_ms = median(quiet) if len(quiet) >= _FEWEST_QUIET else 0.0
    times: list[float] = []
    for block in singles:
        (native_ms,) = block.native_ms
        by_wall_ms = block.wall_ms - block.displaced_ms - overhead.of(1)
        if block.is_quiet:
            times.append(native_ms)
        elif native_ms > _UNUSUAL * usual_ms:
            least_ms = max(usual_ms or _LEAST_SHARE * native_ms, native_ms - block.displaced_ms)
            times.append(min(native_ms, max(least_ms, by_wall_ms)))
        else:
            times.append(max(native_ms, min(usual_ms, by_wall_ms)))
    return times


def read_clocks(
    singles: Sequence[Block], longer: Sequence[tuple[Block, Block]], overhead: Overhead
) -> Clocks:
    """Return the median call by the worker's clock and the hidden time per call."""
    return Clocks(
        native_ms=median(undisturbed_ms(singles, overhead)),
        hidden_single_ms=_hidden_single_ms(singles, overhead),
        hidden_longer_ms=_hidden_longer_ms(longer, overhead) if longer else 0.0,
    )


def overhead_spread_ms(reference: Sequence[Block]) -> float:
    """Return the noise of the overhead: from the lower quartile to the median, of the reference's blocks."""
    lower, middle, _ = _around_quartiles(reference)
    return middle - lower


def _around_quartiles(blocks: Sequence[Block]) -> list[float]:
    return quantiles([block.around_ms for block in blocks], n=4)


def _comparable(
    reference: Sequence[Block], singles: Sequence[Block]
) -> tuple[Sequence[Block], Sequence[Block]]:
    """Return the quiet blocks of both models if both have enough of them, else all blocks of both.

    Quiet blocks of one model against displaced blocks of the other would make honest time look hidden.
    """
    quiet = [[block for block in blocks if block.is_quiet] for blocks in (reference, singles)]
    if min(map(len, quiet)) < _FEWEST_QUIET:
        return reference, singles
    return quiet[0], quiet[1]


def _hidden_single_ms(singles: Sequence[Block], overhead: Overhead) -> float:
    """Return the hidden milliseconds per call: the lower quartile over the faster half of the blocks.

    Other processes lengthen some blocks outside the worker's timer, but rarely the blocks that are fast by
    it. Work that a candidate hides from the timer in order to look fast is in each of the fast blocks.
    """
    hidden = sorted(block.around_ms - overhead.of(1) for block in _faster_half(singles))
    return hidden[len(hidden) // 4]


def _faster_half(singles: Sequence[Block]) -> Sequence[Block]:
    by_speed = sorted(singles, key=lambda block: block.native_ms)
    return by_speed[: (len(by_speed) + 1) // 2]


def _hidden_cpu_ms(reference: Sequence[Block], singles: Sequence[Block]) -> float:
    """Return the processor milliseconds per call outside the worker's timer, beyond the reference's."""
    # The faster half of both counts: a call that waits for a core uses less processor time than wall time.
    ours, theirs = (
        float(np.quantile([block.cpu_ms - block.native_ms[0] for block in _faster_half(blocks)], 0.25))
        for blocks in (singles, reference)
    )
    return max(0.0, ours - theirs)


def _uncertainty_ms(reference: Sequence[Block], singles: Sequence[Block]) -> float:
    """Return by how many milliseconds `_hidden_single_ms` may be too large, with 95 % confidence.

    It is a bootstrap of the difference of the two lower quartiles that are compared.
    """
    generator = np.random.default_rng(len(singles))
    ours, theirs = (
        np.array([block.around_ms for block in blocks]) for blocks in (_faster_half(singles), reference)
    )
    quartiles = [
        np.quantile(generator.choice(around, (_BOOTSTRAP_ROUNDS, len(around))), 0.25, axis=1)
        for around in (ours, theirs)
    ]
    found = np.quantile(ours, 0.25) - np.quantile(theirs, 0.25)
    return max(0.0, float(found - np.quantile(quartiles[0] - quartiles[1], 0.05)))


def _hidden_longer_ms(longer: Sequence[tuple[Block, Block]], overhead: Overhead) -> float:
    """Return the smallest hidden time per call over the longer blocks, in milliseconds.

    Each block's overhead is that of the reference's block of the same length and inputs just before or after
    it, or the calibrated one if that is larger.
    """
    return min(
        (ours.outside_ms - max(theirs.outside_ms, overhead.of(len(ours.native_ms)))) / len(ours.native_ms)
        for theirs, ours in longer
    )
