"""Sessions of timing: which blocks of calls are asked for, in which order, and when they are enough.

What the blocks say is read in `samples` and `batches`; what is right or wrong about a candidate's answers in
`judge.judgement`.
"""

from __future__ import annotations

import random
import time
from typing import Any, Protocol

import torch

from kbopt.core.types import EvalProtocol
from kbopt.evaluation.timing import batches, intervals, samples
from kbopt.evaluation.timing.interleaving import Steps
from kbopt.evaluation.timing.workloads import share_of

_NUM_LONG_BLOCKS = 4
_CHECKED_SHARE = {"cpu": 0.25, "cuda": 0.5}
"""Of single calls. On a GPU, where a timing may end after twenty, more of them."""
_LONG_CHECKED_SHARE = 0.5
_MOST_TIMING_SHARE = 0.5
_FEWEST_TIMED = 10
_PROBES_PER_BLOCK = 0.15
"""Calls that are not timed, and that the candidate cannot tell from those that are."""
_FEWEST_PROBES = {"cpu": 3, "cuda": 6}
"""In a session. A CPU has three of them, one in each pair of processes."""
_LAST_PROBES = 2
"""After the last timed call, one of each kind: what a call computes may depend on how many were before it."""
_NUM_WARM_UPS = 3
_LONG_MS = 250.0
"""Calls of both models that take longer together are warmed up by one: what a first call sets up is small
beside them, and a task of 300 MiB would wait for three of each in every pair of processes."""
_ENOUGH_S = 0.3
"""From here on a timing ends early once it is settled: slow kernels would hold the device for seconds."""
_SETTLED = {"cpu": 0.015, "cuda": 0.005}
"""The standard error of the ratio at which it is: on a CPU a quarter of what differs between processes."""
_BATCH_MS = 2.0
"""Of work in a batch: a thousand of the shortest kernels, as many as a stream holds without blocking."""
_NUM_ONES = 5
_NUM_SLOW_ONES = 3
"""Batches of one call, of kernels above a millisecond."""
_MOST_ONES = 25
_CHARGED_S = 0.3
"""For which further ones are made where those so far would charge the candidate. Other processes that start
or end keep the device's memory busy for a tenth of a second; what a candidate hides is in every batch."""
_SHORTEST_BATCH = 4
"""That is tried where longer ones are late: of kernels and events a stream holds a thousand."""
_NUM_LONGER = 5
"""Of which the median counts: in the first one the children's allocators may still grow."""
_NUM_CHECKED = 4
"""Of the calls of a longer batch."""
_SLOW_MS = 1.0
_SHORT_MS = 0.25
"""Kernels up to here are called in longer batches too: two percent of it are let pass around one call."""
_FEWEST_ALONE = 3
_MOST_ALONE = 8
_ENOUGH_ALONE_S = 0.05
_FEWEST_LATENCIES = 7
_MOST_LATENCIES = 30
_ENOUGH_LATENCIES_S = 0.15
_NUM_CALIBRATIONS = 3
"""Of which the least counts: others who start on the device only ever add."""


Draw = Any
"""One set of inputs, as `Models` draws them."""


class Models(Protocol):
    """Whoever has the reference and the candidate answer a block of calls, of `most_calls` at the most, and
    judges the answers.
    """

    @property
    def most_calls(self) -> int: ...

    def draw(self) -> Draw: ...

    def cached_ms(self) -> float:
        """What a call takes at the least whose inputs lie in the device's cache. On a GPU."""

    def reference_block(self, draws: list[Draw]) -> samples.Block: ...

    def reference_batch(self, draws: list[Draw]) -> samples.Block: ...

    def copies_batch(self, draws: list[Draw], *, marked: bool = False) -> samples.Block: ...

    def candidate_block(self, draws: list[Draw], *, checked: int) -> samples.Block: ...

    def candidate_batch(self, draws: list[Draw], *, checked: int) -> samples.Block: ...

    def latencies(self) -> tuple[samples.Block, samples.Block]: ...

    def travelling_probe(self, number: int) -> None: ...


class Sessions:
    """The sessions of one candidate on one of `num_workloads`. On a GPU `calibrate` comes before its code is
    loaded; `warm_up` before the first `run`. `device` is `cpu` or `cuda`. `overhead` is what requests to its
    worker cost besides the calls, on a CPU. The steps of several workloads may be interleaved.
    """

    def __init__(
        self,
        models: Models,
        device: str,
        protocol: EvalProtocol,
        overhead: samples.Overhead | None,
        rng: random.Random,
        num_workloads: int = 1,
    ) -> None:
        self._models = models
        self._device = device
        self._protocol = protocol
        self._overhead = overhead
        self._rng = rng
        self._on_cpu = device == "cpu"
        self._slowest_ms = 0.0
        self._alone: batches.Alone | None = None
        self._num_probes = rng.randrange(2)
        self._num_workloads = num_workloads
        self._share = share_of(num_workloads)

    def scatter_of(self, session: samples.Session) -> intervals.Scatter:
        """By how much such times differ between processes."""
        if self._on_cpu:
            return intervals.CPU_SCATTER
        return intervals.LAUNCH_SCATTER if session.is_launch_bound else intervals.GPU_SCATTER

    def calibrate(self) -> None:
        """See what the reference takes, and what there is around batches, before the candidate's code is
        there. A GPU cannot be paused: later, what the candidate left running could lengthen both.
        """
        if self._on_cpu:
            return
        draws = [self._models.draw() for _ in range(self._models.most_calls)]
        started = time.perf_counter()
        singles: list[samples.Block] = []
        while len(singles) <= _FEWEST_ALONE or (
            len(singles) <= _MOST_ALONE and time.perf_counter() - started < _ENOUGH_ALONE_S
        ):
            singles.append(self._models.reference_block(draws[:1]))
        copies, around = self._around_batches(draws)
        self._alone = batches.Alone(
            reference_ms=samples.median_ms(singles[1:]),  # The first one after a while is slower.
            copies=copies,
            around=around,
        )

    def _around_batches(self, draws: list[Draw]) -> tuple[samples.Overhead, samples.Overhead]:
        """What batches of copies take by their child's clock, and what is around them without that clock.

        Of each length by itself: what a copy leaves in the cache for the next one to write back is 17 us of
        268 MB, and the first one finds nothing there.
        """

        def least_ms(length: int) -> tuple[float, float]:
            marked, plain = (
                [self._models.copies_batch(draws[:length], marked=marked) for _ in range(_NUM_CALIBRATIONS)]
                for marked in (True, False)
            )
            copies_ms = min(sum(block.native_ms) for block in marked)
            return copies_ms, min(block.wall_ms for block in plain) - copies_ms

        most = len(draws)
        (copy_ms, around_one_ms), (copies_ms, around_most_ms) = least_ms(1), least_ms(most)
        through = samples.Overhead.through
        return through(1, copy_ms, most, copies_ms), through(1, around_one_ms, most, around_most_ms)

    def warm_up(self) -> None:
        for _ in range(_NUM_WARM_UPS):
            draws = [self._models.draw()]
            blocks = (
                self._models.reference_block(draws),
                self._models.candidate_block(draws, checked=0),
            )
            self._slowest_ms = sum(block.wall_ms for block in blocks)
            if self._slowest_ms > _LONG_MS:
                break

    def run(self) -> Steps[samples.Session]:
        """Time both models, as many calls as the protocol and their slowness allow."""
        reference: list[samples.Block] = []
        singles: list[samples.Block] = []
        longer: list[tuple[samples.Block, samples.Block]] = []
        started = time.perf_counter()
        for length in self._plan():
            if self._rng.random() < _PROBES_PER_BLOCK:
                self._probe()
            theirs, ours = self._both_blocks(length)
            if length == 1:
                reference.append(theirs)
                singles.append(ours)
            else:
                longer.append((theirs, ours))
            yield
            is_long = time.perf_counter() - started > self._of_all(_ENOUGH_S)
            has_longer = len(longer) > 1 or self._longest == 1
            if is_long and has_longer and samples.is_settled(reference, singles, _SETTLED[self._device]):
                break
        missing = round(self._share * _FEWEST_PROBES[self._device]) - self._num_probes
        for _ in range(max(_LAST_PROBES, missing)):  # Nobody knows that the times are taken.
            self._probe()
            yield
        if self._overhead is not None:
            single_threaded = torch.get_num_threads() == 1
            return samples.read_session(
                reference, singles, longer, self._overhead, single_threaded=single_threaded
            )
        if self._alone is None:
            raise RuntimeError("sessions on a GPU are calibrated before the candidate's code is there")
        if self._models.most_calls > 1:
            # Not for its time: outputs of one block must not lie in the same memory.
            self._models.candidate_block([self._models.draw() for _ in range(2)], checked=1)
        evidence = yield from self._fire(
            self._alone, samples.median_ms(reference), samples.median_ms(singles)
        )
        return batches.read_gpu_session(reference, singles, evidence, self._alone)

    def _of_all(self, seconds: float) -> float:
        """What all workloads may take together, where the only one of a task takes `seconds`."""
        return self._share * self._num_workloads * seconds

    def _probe(self) -> None:
        """Of its two kinds, one after the other, so that both are there."""
        self._models.travelling_probe(self._num_probes)
        self._num_probes += 1

    def latency(self) -> Steps[samples.Latency | None]:
        """What one synchronised call of either model takes, by pairs of them; None on a CPU, where it is
        their time.
        """
        if self._on_cpu:
            return None
        pairs: list[tuple[samples.Block, samples.Block]] = []
        started = time.perf_counter()
        while len(pairs) < _FEWEST_LATENCIES or (
            len(pairs) < self._share * _MOST_LATENCIES
            and time.perf_counter() - started < self._of_all(_ENOUGH_LATENCIES_S)
        ):
            pairs.append(self._models.latencies())
            yield
        return samples.read_latency(pairs)

    @property
    def _longest(self) -> int:
        """Of the blocks between single calls. On a GPU there are batches instead, in the end."""
        return self._models.most_calls if self._on_cpu else 1

    def _plan(self) -> list[int]:
        """Lengths of blocks: `timed` single calls, and a few longer blocks somewhere between them."""
        affordable_ms = _MOST_TIMING_SHARE * self._protocol.timeout_s * 1000 / self._num_workloads
        affordable = affordable_ms / max(self._slowest_ms, 1e-3)
        timed = min(self._protocol.timed, max(_FEWEST_TIMED, int(affordable)))
        plan = [1] * timed
        if self._longest > 1:
            num_long = min(_NUM_LONG_BLOCKS, max(1, timed // 10))
            plan += [self._rng.randint(2, self._longest) for _ in range(num_long)]
        self._rng.shuffle(plan)
        return plan

    def _both_blocks(self, length: int) -> tuple[samples.Block, samples.Block]:
        """The reference's block and the candidate's, on the same inputs, in either order: what a call costs
        depends on what the allocator and the caches saw before it.
        """
        draws = [self._models.draw() for _ in range(length)]
        single_share = _CHECKED_SHARE[self._device]
        is_checked = self._rng.random() < (single_share if length == 1 else _LONG_CHECKED_SHARE)
        reference_first = self._rng.random() < 0.5
        if reference_first:
            theirs = self._models.reference_block(draws)
        ours = self._models.candidate_block(draws, checked=int(is_checked))
        if not reference_first:
            theirs = self._models.reference_block(draws)
        return theirs, ours

    def _fire(self, alone: batches.Alone, reference_ms: float, kernel_ms: float) -> Steps[batches.Evidence]:
        """Batches of models whose single calls take that long by their own clocks."""
        number = _NUM_ONES if kernel_ms <= _SLOW_MS else _NUM_SLOW_ONES
        started = time.perf_counter()
        ones = yield from self._batches(alone, 1, number, with_reference=False)
        while (
            not ones.are_late
            and batches.Evidence(ones=ones).least_ms() > kernel_ms
            and len(ones.kernel) < _MOST_ONES
            and time.perf_counter() - started < self._of_all(_CHARGED_S)
        ):
            more = yield from self._batches(alone, 1, 1, with_reference=False)
            ones = ones.with_more(more)
        call_ms = max(kernel_ms, ones.shortest_ms)
        length = min(self._models.most_calls, round(_BATCH_MS / call_ms))
        if ones.are_late or call_ms > _SHORT_MS or length == 1:
            return batches.Evidence(ones=ones)
        with_reference = reference_ms <= _SLOW_MS
        longer = yield from self._batches(alone, length, _NUM_LONGER, with_reference=with_reference)
        if longer.are_late and length > _SHORTEST_BATCH:
            longer = yield from self._batches(
                alone, _SHORTEST_BATCH, _NUM_LONGER, with_reference=with_reference
            )
        return batches.Evidence(ones=ones, longer=longer, cached_ms=self._models.cached_ms())

    def _batches(
        self, alone: batches.Alone, length: int, number: int, *, with_reference: bool
    ) -> Steps[batches.Batches]:
        copies, reference, kernel = [], [], []
        for _ in range(number):
            draws = [self._models.draw() for _ in range(length)]
            copies.append(self._models.copies_batch(draws))
            if with_reference:
                reference.append(self._models.reference_batch(draws))
            kernel.append(self._models.candidate_batch(draws, checked=_NUM_CHECKED))
            yield
        return batches.Batches(
            known_around_ms=alone.around.of(length),
            known_copies_ms=alone.copies.of(length),
            copies=tuple(copies),
            reference=tuple(reference),
            kernel=tuple(kernel),
        )
