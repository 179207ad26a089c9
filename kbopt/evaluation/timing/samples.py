"""What interleaved timings say: which clock is believed, and what it did not see. Pure functions.

Times are milliseconds of single calls. `native` is the clock inside the child, `wall` the judge's own
clock around a block of calls, less what an empty block cost before candidate code was loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

import numpy as np

from kbopt.evaluation.timing.intervals import median_variance

_BOOTSTRAP_ROUNDS = 1000
_CLOCK_SLACK_MS = 0.005
_QUIET = 0.05
_FEWEST_QUIET = 5
_UNUSUAL = 1.25
_LEAST_SHARE = 0.25
_FEWEST_SETTLED = 20
_AGREEMENT = 1.3
"""How much longer the wall clock may find a call than the native one. Hidden work shows as 2 and more."""


_LATENCY_SLACK_MS = 0.05
"""By how much messages around a call may differ between two processes that do the same."""
_LAUNCH_SHARE = 0.8
"""Of a call's time, what the device works at the most where it waits for launches."""
_LAUNCH_LEAST_MS = 0.01
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
    """`native_ms` of each of the block's calls, and the judge's `wall_ms` for all of them together.

    `displaced_ms` of the wall time went to other processes of the machine; see `Worker._displaced`.
    `cpu_ms` is the processor time of all of the sandbox, until it was paused. `is_late` where the calls of a
    batch were not all queued when their inputs came, since they wait for the device themselves.
    """

    native_ms: tuple[float, ...]
    wall_ms: float
    displaced_ms: float = 0.0
    cpu_ms: float = 0.0
    is_late: bool = False

    @property
    def around_ms(self) -> float:
        """What the judge's clock saw beyond the child's, waiting for a core included.

        A wait inside a call is in both clocks. Taking `displaced_ms` off would therefore make the overhead
        of long calls on a busy machine negative, and would forgive a child whose clock stands still.
        """
        return self.wall_ms - sum(self.native_ms)

    @property
    def outside_ms(self) -> float:
        """The same less all waiting for a core: where no quiet block can be had."""
        return self.around_ms - self.displaced_ms

    @property
    def is_quiet(self) -> bool:
        """Whether other processes took next to nothing of it."""
        return self.displaced_ms <= _QUIET * self.wall_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """What a block costs besides its calls: `fixed_ms` once, `per_call_ms` for each."""

    fixed_ms: float
    per_call_ms: float

    @classmethod
    def through(cls, short: int, short_ms: float, long: int, long_ms: float) -> Overhead:
        """The line through empty blocks of two lengths."""
        slope = max(0.0, (long_ms - short_ms) / (long - short)) if long > short else 0.0
        return cls(fixed_ms=short_ms - short * slope, per_call_ms=slope)

    def of(self, num_calls: int) -> float:
        return self.fixed_ms + num_calls * self.per_call_ms

    def as_seen_in(self, reference: Sequence[Block]) -> Overhead:
        """The same slope through what single calls of the reference cost in the session itself.

        The reference's child is trusted and does the same work around its calls, at the same time. The
        lower quartile, as in `_hidden_single_ms`: waiting for a core only ever adds.
        """
        return Overhead(
            fixed_ms=_around_quartiles(reference)[0] - self.per_call_ms,
            per_call_ms=self.per_call_ms,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """`native_ms` is the median single call by the child's clock. The other two are what the judge's
    clock found beyond the child's at the least, per call, in blocks of one call and in longer ones. On a GPU
    the blocks are batches.
    """

    native_ms: float
    hidden_single_ms: float
    hidden_longer_ms: float

    @property
    def wall_ms(self) -> float:
        """A call by the judge's clock: the figure that the child cannot influence."""
        return self.native_ms + max(0.0, self.hidden_single_ms, self.hidden_longer_ms)

    def agree(self, slack_ms: float) -> bool:
        """Whether no more than 30 % of a call and `slack_ms` is hidden."""
        return self.wall_ms <= _AGREEMENT * self.native_ms + slack_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Both models' times of single calls, as they are believed, and whether they may be.

    `is_busy` where too few blocks were free of waiting for a core, which makes clocks disagree by chance.
    On a GPU the reference's times were `slowed` times as long, the candidate's calls `wait` for the device,
    and the shortest of them that was queued beforehand, as far as it goes, took `queued_ms`; 0 on a CPU.
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
        """What its reader should know of the times."""
        notes = [_WAITS_NOTE] if self.waits else []
        if self.is_launch_bound:
            notes.append(_LAUNCH_NOTE.format(queued_ms=self.queued_ms, native_ms=self.clocks.native_ms))
        if self.slowed > 1:
            notes.append(_SLOWED_NOTE.format(slowed=self.slowed))
        return notes


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Both models' times of single synchronised calls on a GPU, as their callers see them."""

    kernel_ms: tuple[float, ...]
    reference_ms: tuple[float, ...]


def read_latency(pairs: Sequence[tuple[Block, Block]]) -> Latency:
    """Blocks of one call, the reference's and the candidate's. What the judge's clock shows around the
    candidate's and not around the reference's is added to it: a child's own clock can be made to stand still.
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
    """What interleaved blocks on a CPU say: single calls of both models, and longer blocks as pairs of the
    reference's and the candidate's.

    What the child's clock did not see is added to its times, so that hiding less than is punished gains
    nothing, however noisy the machine; to be refused for it, it has to be certain. Where both models get
    one thread, so is processor time that the call does not explain: work that another core does while the
    answer is on its way takes no wall time.
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
    """The median single call by its own clock."""
    return median(block.native_ms[0] for block in singles)


def is_settled(reference: Sequence[Block], singles: Sequence[Block], share: float) -> bool:
    """Whether more single calls would hardly change the ratio: its standard error is below `share` of it."""
    if min(len(reference), len(singles)) < _FEWEST_SETTLED:
        return False
    times = ([block.native_ms[0] for block in blocks] for blocks in (reference, singles))
    return sum(map(median_variance, times)) <= share**2


def undisturbed_ms(singles: Sequence[Block], overhead: Overhead) -> list[float]:
    """Single calls by the child's clock, those that other processes lengthened without that.

    What displaced a block may have done so before or after the call. So only times that are unusual
    next to the quiet blocks' are corrected, by the judge's clock, and to no less than what is usual.
    A child can read how long it waited and lie there alone: what is unusually short is corrected too.
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
    """What the two clocks say of the blocks; see `_hidden_single_ms` on a machine that is busy."""
    return Clocks(
        native_ms=median(undisturbed_ms(singles, overhead)),
        hidden_single_ms=_hidden_single_ms(singles, overhead),
        hidden_longer_ms=_hidden_longer_ms(longer, overhead) if longer else 0.0,
    )


def overhead_spread_ms(reference: Sequence[Block]) -> float:
    """From the lower quartile of the reference's overhead to the median: what is noise, at the least."""
    lower, middle, _ = _around_quartiles(reference)
    return middle - lower


def _around_quartiles(blocks: Sequence[Block]) -> list[float]:
    return quantiles([block.around_ms for block in blocks], n=4)


def _comparable(
    reference: Sequence[Block], singles: Sequence[Block]
) -> tuple[Sequence[Block], Sequence[Block]]:
    """Those of either model that nothing displaced, where both have enough of them, else all of both.

    Quiet blocks of the one beside waiting ones of the other would make honest work look hidden.
    """
    quiet = [[block for block in blocks if block.is_quiet] for blocks in (reference, singles)]
    if min(map(len, quiet)) < _FEWEST_QUIET:
        return reference, singles
    return quiet[0], quiet[1]


def _hidden_single_ms(singles: Sequence[Block], overhead: Overhead) -> float:
    """Time per call that the child's clock did not see, in the blocks that make its median.

    Other processes lengthen some blocks outside the child's timer, but rarely those that are fast by it;
    work that is hidden from the timer to look fast is there in each of them. So the blocks of the faster
    half are looked at, and among them the quarter with the least hidden.
    """
    hidden = sorted(block.around_ms - overhead.of(1) for block in _faster_half(singles))
    return hidden[len(hidden) // 4]


def _faster_half(singles: Sequence[Block]) -> Sequence[Block]:
    by_speed = sorted(singles, key=lambda block: block.native_ms)
    return by_speed[: (len(by_speed) + 1) // 2]


def _hidden_cpu_ms(reference: Sequence[Block], singles: Sequence[Block]) -> float:
    """Processor time per call that its own clock does not cover, beyond the reference's."""
    # The faster half of both: in a call that waits for a core less processor time than wall time passes.
    ours, theirs = (
        float(np.quantile([block.cpu_ms - block.native_ms[0] for block in _faster_half(blocks)], 0.25))
        for blocks in (singles, reference)
    )
    return max(0.0, ours - theirs)


def _uncertainty_ms(reference: Sequence[Block], singles: Sequence[Block]) -> float:
    """How much less than `_hidden_single_ms` says may be hidden, with 95 % confidence, by the scatter of
    what it compares: a bootstrap of the difference of lower quartiles.
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
    """The least per call over the few longer blocks, which are seldom quiet. Punished, never credited.

    Beside what the reference's block of the same length and inputs cost just before or after.
    """
    return min(
        (ours.outside_ms - max(theirs.outside_ms, overhead.of(len(ours.native_ms)))) / len(ours.native_ms)
        for theirs, ours in longer
    )
