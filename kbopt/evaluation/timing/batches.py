"""Bounds on the times of single calls on a GPU, from batches of calls. Pure functions.

The calls of a batch wait at a gate in the worker's stream until the judge has copied their inputs in. The
batch's time is the time between two events of the judge's, so it holds no time of either process's host code.
See `GpuWorker.batch` and docs/decisions/0035-gpu-times-are-bounded-behind-a-gate.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from kbopt.evaluation.timing.intervals import GPU_SCATTER
from kbopt.evaluation.timing.samples import Block, Clocks, Overhead, Session, hidden_around_ms

_BATCH_AGREEMENT = 1.3
"""An honest kernel's speedup by single calls is at most this many times its speedup by long batches. Honest
sources reach 1/0.96 (decision 35)."""
_SINGLE_AGREEMENT = 1.02
"""A batch of one call may take this many times a single call by the worker's clock without charge."""
_MOST_LONGER = 1.5
"""A reference call in a batch counts as at most this many times a single call. If it takes longer, work that
the candidate left on the device slows it."""
_SLOWED = 1.1
"""The reference may take this many times as long beside a candidate as alone: the device gets warmer."""
_IMPOSSIBLE_MS = 0.01
"""A shortest call may come out this many milliseconds below zero: the overhead that is taken off scatters."""
_HOST_MS = 0.3
"""Milliseconds per call by which the host's clock around single calls may differ between two processes that
do the same. A larger difference counts as hidden launching of kernels."""
_AROUND_MS = 0.002
"""Milliseconds of standard deviation of a batch's overhead, for one source in several processes:
benchmarks/results/2026-11-25-volleys-of-one.md."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """What was measured on a GPU before the candidate's code was loaded.

    `reference_ms` is the median single call of the reference by its worker's clock, `copies` the time of
    batches of copies by the same clock, and `around` the rest of those batches' time by the judge's clock.
    `waiting_ms` is what a batch of one call of the reference took beyond a single call, if the reference
    itself waits for the device, and None if it does not. It is the time until both processes have noticed
    the end of that wait.
    """

    reference_ms: float
    copies: Overhead
    around: Overhead
    waiting_ms: float | None = None

    def share_of(self, reference_ms: Sequence[float]) -> float:
        """Return the share of a session's reference times that counts, at most 1.

        It is below 1 if the reference was much slower than alone: a candidate may slow it down on purpose.
        """
        most_ms = _SLOWED * self.reference_ms + 4 * GPU_SCATTER.call_ms
        return min(1.0, most_ms / median(reference_ms))


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Batches of one length: of copies, of the candidate and, if asked for, of the reference.

    Before the candidate's code was loaded, a batch of as many copies took `known_copies_ms` by the worker's
    clock and `known_around_ms` more by the judge's. The blocks here hold no times by the worker's clock: a
    candidate that left out the events would look faster.
    """

    known_copies_ms: float
    known_around_ms: float
    copies: tuple[Block, ...]
    reference: tuple[Block, ...] = ()
    kernel: tuple[Block, ...]

    def with_more(self, others: Batches) -> Batches:
        """Return these batches and `others` of the same length."""
        return replace(
            self,
            copies=self.copies + others.copies,
            reference=self.reference + others.reference,
            kernel=self.kernel + others.kernel,
        )

    @property
    def length(self) -> int:
        return len(self.kernel[0].native_ms)

    @property
    def around_ms(self) -> float:
        """A batch's overhead in milliseconds: the smallest one, since other processes only add to it.

        It is never more than before the candidate was loaded: a copy takes up to a fifth longer after a
        kernel that leaves the cache full of its output, and that time is no overhead.
        """
        seen_ms = min(block.wall_ms for block in self.copies) - self.known_copies_ms
        return min(self.known_around_ms, seen_ms)

    @property
    def are_late(self) -> bool:
        """Whether most of the candidate's batches wait for the device. Their times then include that wait."""
        return sum(block.is_late for block in self.kernel) > len(self.kernel) / 2

    @property
    def shortest_ms(self) -> float:
        """Milliseconds per call of the candidate in its shortest batch, by the judge's clock alone."""
        return (min(block.wall_ms for block in self.kernel) - self.around_ms) / self.length

    @property
    def median_ms(self) -> float:
        """The same in the median batch. It is used for batches of which some answers were not checked."""
        return self._median_ms(self.kernel)

    @property
    def reference_ms(self) -> float:
        """Milliseconds per call of the reference in its median batch, or 0 if there is none."""
        return self._median_ms(self.reference) if self.reference else 0.0

    def _median_ms(self, blocks: Sequence[Block]) -> float:
        return (median(block.wall_ms for block in blocks) - self.around_ms) / self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A session's batches.

    `ones` are batches of one call, all of them checked. `longer`, for short kernels only, divide the
    overhead's scatter among many calls. `cached_ms` is the time that a single call saves because its output
    may stay in the cache: in longer batches the next call has to write it back.
    """

    ones: Batches
    longer: Batches | None = None
    cached_ms: float = 0.0

    @property
    def waits(self) -> bool:
        return self.ones.are_late

    @property
    def is_possible(self) -> bool:
        """Whether the shortest batch took longer than its overhead alone, within `_IMPOSSIBLE_MS`."""
        return self.ones.shortest_ms > -_IMPOSSIBLE_MS

    def least_ms(self, reference_ms: float = 0.0, most_waiting_ms: float = 0.0) -> float:
        """Return the shortest time in milliseconds that is believed of a single call.

        A call that waits for the device gets no tolerance: to wait on purpose must gain nothing. If the
        reference waits as well, both are charged alike. Then the difference between its batches of one call
        and its single call of `reference_ms` is taken off, or added where its batches are shorter.
        """
        ones = self.ones
        if not self.waits:
            return ones.shortest_ms / _SINGLE_AGREEMENT - 2 * _AROUND_MS
        if not ones.reference:
            return ones.shortest_ms
        return ones.median_ms - min(ones.reference_ms - reference_ms, most_waiting_ms)

    def least_longer_ms(self, reference_ms: float) -> float:
        """Return the same by longer batches, or 0 without any. `reference_ms` is the reference's single call.

        Calls that follow each other closely may take longer than single ones, and how much depends on the
        kernels. But the ratio of candidate to reference hardly changes, so the bound is taken from that
        ratio. A reference that is too slow for batches counts with its single call.
        """
        batches = self.longer
        if batches is None:
            return 0.0
        ours_ms = batches.median_ms - self.cached_ms - 2 * _AROUND_MS / batches.length
        theirs_ms = max(reference_ms, min(_MOST_LONGER * reference_ms, batches.reference_ms))
        return reference_ms * ours_ms / (_BATCH_AGREEMENT * theirs_ms)


def read_gpu_session(
    reference: Sequence[Block], singles: Sequence[Block], evidence: Evidence, alone: Alone
) -> Session:
    """Return the times of single calls on a GPU by the worker's clock, corrected by what the batches show.

    Time that batches show beyond the worker's clock is added to the candidate's times. If it is too much, the
    clocks do not agree, except for a candidate that waits for the device in its calls: its batches include
    the wait. Time far beyond that by the host's clock is the launching of kernels, which no batch holds: it
    is added too, and never a reason to refuse. `alone` bounds how much the candidate can slow down the
    reference.
    """
    kernel_ms, theirs_ms = ([block.native_ms[0] for block in blocks] for blocks in (singles, reference))
    share = alone.share_of(theirs_ms)
    reference_ms, native_ms = share * median(theirs_ms), median(kernel_ms)
    clocks = Clocks(
        native_ms=native_ms,
        hidden_single_ms=evidence.least_ms(reference_ms, alone.waiting_ms or 0.0) - native_ms,
        hidden_longer_ms=evidence.least_longer_ms(reference_ms) - native_ms,
    )
    agree = evidence.is_possible and (evidence.waits or clocks.agree(slack_ms=2 * _AROUND_MS))
    launching_ms = hidden_around_ms(reference, singles) - _HOST_MS
    clocks = replace(clocks, hidden_single_ms=max(clocks.hidden_single_ms, launching_ms))
    return Session(
        kernel_ms=tuple(ms + clocks.wall_ms - native_ms for ms in kernel_ms),
        reference_ms=tuple(share * ms for ms in theirs_ms),
        slowed=1 / share,
        clocks=clocks,
        clocks_agree=agree,
        waits=evidence.waits,
        reference_waits=alone.waiting_ms is not None,
        queued_ms=evidence.ones.shortest_ms,
    )
