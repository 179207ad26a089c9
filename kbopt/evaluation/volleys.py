"""What volleys on a GPU prove of single calls. Pure functions.

A volley is a block whose calls wait at a gate in the child's stream until their inputs are there, and whose
time is that between two events of the referee's, see `Player.volley`. So neither host is in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from kbopt.evaluation.timing import GPU_SCATTER, Block, Clocks, Overhead, Session

_VOLLEY_AGREEMENT = 1.3
"""How much more of the reference's time single calls of an honest kernel may save than volleys show."""
_SINGLE_AGREEMENT = 1.02
"""How much longer a volley of one call may be than a single call by the child's clock."""
_MOST_LONGER = 1.5
"""Than alone, a call of the reference's in a volley. More comes of work that somebody left on the device."""
_SLOWED = 1.1
"""By how much the reference may be slower beside a candidate than alone, as on a device that got warm."""
_AROUND_MS = 0.002
"""Standard deviation of what is around a volley, of one source in several processes:
benchmarks/results/2026-11-25-volleys-of-one.md."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """What was found on a GPU before the candidate's code was there: the reference's single calls, and the
    line through what is around volleys of copies.
    """

    reference_ms: float
    volleys: Overhead

    def share_of(self, reference_ms: Sequence[float]) -> float:
        """Of the reference's times in a session, what counts: it may have been slowed down on purpose."""
        most_ms = _SLOWED * self.reference_ms + 4 * GPU_SCATTER.call_ms
        return min(1.0, most_ms / median(reference_ms))


@dataclass(frozen=True, slots=True, kw_only=True)
class Volleys:
    """Blocks of one length whose calls are all queued before their inputs are there: of a copy and, where it
    was asked, of the reference, both in trusted children; and of the candidate.

    `most_around_ms` is what there can be around a volley, as far as was seen beforehand.
    """

    most_around_ms: float = math.inf
    copies: tuple[Block, ...]
    reference: tuple[Block, ...] = ()
    kernel: tuple[Block, ...]

    @property
    def length(self) -> int:
        return len(self.kernel[0].native_ms)

    @property
    def around_ms(self) -> float:
        """What the referee's clock shows around copies."""
        return min(self.most_around_ms, median(block.around_ms for block in self.copies))

    @property
    def are_late(self) -> bool:
        """Whether most of the candidate's wait for the device: then they show what waiting costs as well."""
        return _are_late(self.kernel)

    def without_first(self) -> Volleys:
        return replace(self, copies=self.copies[1:], reference=self.reference[1:], kernel=self.kernel[1:])

    def shortest_ms(self, blocks: Sequence[Block]) -> float:
        """A call of either model by the referee's clock alone, in the shortest of its volleys."""
        return (min(block.wall_ms for block in blocks) - self.around_ms) / self.length

    def median_ms(self, blocks: Sequence[Block]) -> float:
        """The same in the median volley: for volleys of which not all answers were checked."""
        return (median(block.wall_ms for block in blocks) - self.around_ms) / self.length


def _are_late(volleys: Sequence[Block]) -> bool:
    return sum(block.is_late for block in volleys) > len(volleys) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A session's volleys: of single calls, all of which were checked; of short kernels of many calls, too,
    in which what scatters is divided among them. `cached_ms` is what a call saves that leaves the cache full
    of its output: in the longer volleys the next call pays for it.
    """

    ones: Volleys
    longer: Volleys | None = None
    cached_ms: float = 0.0

    @property
    def waits(self) -> bool:
        """Whether the candidate's calls wait for the device."""
        return self.ones.are_late

    def least_ms(self) -> float:
        """The shortest single call that can be believed.

        One that waits for the device is finding its outputs, too, in that time, and has nothing taken off.
        """
        call_ms = self.ones.shortest_ms(self.ones.kernel)
        return call_ms if self.waits else call_ms / _SINGLE_AGREEMENT - 2 * _AROUND_MS

    def least_longer_ms(self, reference_ms: float) -> float:
        """The same by longer volleys, next to a single call of the reference's of `reference_ms`.

        Calls that follow each other closely may cost more than single ones, by what depends on their kernels.
        But the ratio of two models hardly changes, and slow ones, which are not asked, take what they take.
        """
        volleys = self.longer
        if volleys is None:
            return 0.0
        ours_ms = volleys.median_ms(volleys.kernel) - self.cached_ms - 2 * _AROUND_MS / volleys.length
        totals_ms = [sum(block.native_ms) for block in volleys.reference]
        own_ms = median(totals_ms) / volleys.length if totals_ms else 0.0
        theirs_ms = max(reference_ms, min(_MOST_LONGER * reference_ms, own_ms))
        return reference_ms * ours_ms / (_VOLLEY_AGREEMENT * theirs_ms)

    def reference_waits_ms(self, reference_ms: float) -> float:
        """What is to be charged to a reference that waits for the device, where its candidate is charged."""
        if not _are_late(self.ones.reference):
            return 0.0
        return max(0.0, self.ones.shortest_ms(self.ones.reference) - reference_ms)


def read_gpu_session(
    reference: Sequence[Block], singles: Sequence[Block], evidence: Evidence, alone: Alone
) -> Session:
    """What single calls on a GPU say by their own clocks, as far as volleys allow it.

    What volleys show beyond the child's clock is charged, and no reason to refuse a candidate that waits for
    the device in its calls: that is in it. `alone` bounds what both models' times may have been made of by
    work that the candidate left on the device.
    """
    kernel_ms, theirs_ms = ([block.native_ms[0] for block in blocks] for blocks in (singles, reference))
    share = alone.share_of(theirs_ms)
    reference_ms = share * median(theirs_ms)
    native_ms = median(kernel_ms)
    clocks = Clocks(
        native_ms=native_ms,
        hidden_single_ms=evidence.least_ms() - native_ms,
        hidden_longer_ms=evidence.least_longer_ms(reference_ms) - native_ms,
    )
    waits_ms = evidence.reference_waits_ms(reference_ms)
    return Session(
        kernel_ms=tuple(ms + clocks.wall_ms - native_ms for ms in kernel_ms),
        reference_ms=tuple(share * ms + waits_ms for ms in theirs_ms),
        slowed=1 / share,
        clocks=clocks,
        clocks_agree=evidence.waits or clocks.agree(slack_ms=0.0),
        waits=evidence.waits,
        queued_ms=0.0 if evidence.waits else evidence.ones.shortest_ms(evidence.ones.kernel),
    )
