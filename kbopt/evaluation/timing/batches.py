"""What batches on a GPU prove of single calls. Pure functions.

A batch is a block whose calls wait at a gate in the child's stream until their inputs are there, and whose
time is that between two events of the judge's, see `Worker.batch`. So neither host is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median, quantiles

from kbopt.evaluation.timing.intervals import GPU_SCATTER
from kbopt.evaluation.timing.samples import Block, Clocks, Overhead, Session

_BATCH_AGREEMENT = 1.3
"""How much more of the reference's time single calls of an honest kernel may save than batches show."""
_SINGLE_AGREEMENT = 1.02
"""How much longer a batch of one call may be than a single call by the child's clock."""
_MOST_LONGER = 1.5
"""Than alone, a call of the reference's in a batch. More comes of work that somebody left on the device."""
_SLOWED = 1.1
"""By how much the reference may be slower beside a candidate than alone, as on a device that got warm."""
_IMPOSSIBLE_MS = 0.01
_HOST_MS = 0.3
"""By how much the host's clock around single calls may differ between two processes that do the same."""
_AROUND_MS = 0.002
"""Standard deviation of what is around a batch, of one source in several processes:
benchmarks/results/2026-11-25-volleys-of-one.md."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """What was found on a GPU before the candidate's code was there: single calls of the reference's and
    batches of `copies` by their child's clock, and what is `around` these by the judge's.
    """

    reference_ms: float
    copies: Overhead
    around: Overhead

    def share_of(self, reference_ms: Sequence[float]) -> float:
        """Of the reference's times in a session, what counts: it may have been slowed down on purpose."""
        most_ms = _SLOWED * self.reference_ms + 4 * GPU_SCATTER.call_ms
        return min(1.0, most_ms / median(reference_ms))


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Blocks of one length whose calls are all queued before their inputs are there: of a copy and, where it
    was asked, of the reference, both in trusted children; and of the candidate.

    Before the candidate's code was there, as many copies took `known_copies_ms`, and `known_around_ms` was
    around them. The blocks have no times by their child's clock: nothing may be left out.
    """

    known_copies_ms: float
    known_around_ms: float
    copies: tuple[Block, ...]
    reference: tuple[Block, ...] = ()
    kernel: tuple[Block, ...]

    def with_more(self, others: Batches) -> Batches:
        """These and others of the same length."""
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
        """What is around copies at the least: others on the device only add.

        Beside a candidate it is taken to be no more than before: a copy takes up to a fifth longer after a
        kernel that leaves the cache full of its output, and what surrounds it does not.
        """
        seen_ms = min(block.wall_ms for block in self.copies) - self.known_copies_ms
        return min(self.known_around_ms, seen_ms)

    @property
    def are_late(self) -> bool:
        """Whether most of the candidate's wait for the device: then they show what waiting costs as well."""
        return sum(block.is_late for block in self.kernel) > len(self.kernel) / 2

    @property
    def shortest_ms(self) -> float:
        """A call of the candidate's by the judge's clock alone, in the shortest of its batches."""
        return (min(block.wall_ms for block in self.kernel) - self.around_ms) / self.length

    @property
    def median_ms(self) -> float:
        """The same in the median batch: for batches of which not all answers were checked."""
        return self._median_ms(self.kernel)

    @property
    def reference_ms(self) -> float:
        """A call of the reference's in the median batch; 0 where it was not asked."""
        return self._median_ms(self.reference) if self.reference else 0.0

    def _median_ms(self, blocks: Sequence[Block]) -> float:
        return (median(block.wall_ms for block in blocks) - self.around_ms) / self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A session's batches: of single calls, all of which were checked; of short kernels of many calls, too,
    in which what scatters is divided among them. `cached_ms` is what a call saves that leaves the cache full
    of its output: in the longer batches the next call pays for it.
    """

    ones: Batches
    longer: Batches | None = None
    cached_ms: float = 0.0

    @property
    def waits(self) -> bool:
        """Whether the candidate's calls wait for the device."""
        return self.ones.are_late

    @property
    def is_possible(self) -> bool:
        """Whether a call took longer than nothing: no process gets the device sooner than a copy does."""
        return self.ones.shortest_ms > -_IMPOSSIBLE_MS

    def least_ms(self) -> float:
        """The shortest single call that can be believed. From one that waits for the device nothing is taken
        off: who waits on purpose shall not gain by it.
        """
        call_ms = self.ones.shortest_ms
        return call_ms if self.waits else call_ms / _SINGLE_AGREEMENT - 2 * _AROUND_MS

    def least_longer_ms(self, reference_ms: float) -> float:
        """The same by longer batches, next to a single call of the reference's of `reference_ms`.

        Calls that follow each other closely may cost more than single ones, by what depends on their kernels.
        But the ratio of two models hardly changes, and slow ones, which are not asked, take what they take.
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
    """What single calls on a GPU say by their own clocks, as far as batches allow it.

    What batches show beyond the child's clock is charged, and no reason to refuse a candidate that waits for
    the device in its calls: that is in it. So is, and charged only, what the host's clock shows far beyond
    it: the launching of kernels, which no batch holds. `alone` bounds what both models' times may have been
    made of by work that the candidate left on the device.
    """
    kernel_ms, theirs_ms = ([block.native_ms[0] for block in blocks] for blocks in (singles, reference))
    share = alone.share_of(theirs_ms)
    native_ms = median(kernel_ms)
    clocks = Clocks(
        native_ms=native_ms,
        hidden_single_ms=evidence.least_ms() - native_ms,
        hidden_longer_ms=evidence.least_longer_ms(share * median(theirs_ms)) - native_ms,
    )
    agree = evidence.is_possible and (evidence.waits or clocks.agree(slack_ms=2 * _AROUND_MS))
    launching_ms = _hidden_launching_ms(reference, singles)
    clocks = replace(clocks, hidden_single_ms=max(clocks.hidden_single_ms, launching_ms))
    return Session(
        kernel_ms=tuple(ms + clocks.wall_ms - native_ms for ms in kernel_ms),
        reference_ms=tuple(share * ms for ms in theirs_ms),
        slowed=1 / share,
        clocks=clocks,
        clocks_agree=agree,
        waits=evidence.waits,
        queued_ms=evidence.ones.shortest_ms,
    )


def _hidden_launching_ms(reference: Sequence[Block], singles: Sequence[Block]) -> float:
    """What the host's clock shows around the candidate's calls and not around the reference's."""
    ours_ms, theirs_ms = (
        quantiles([block.around_ms for block in blocks], n=4) for blocks in (singles, reference)
    )
    return ours_ms[0] - theirs_ms[1] - _HOST_MS
