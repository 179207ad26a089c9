"""Sessions of timing: which blocks of calls run, in which order, and when a session ends.

`samples` and `batches` compute times from the blocks. `judge.checks` decides whether answers are right.
"""

from __future__ import annotations

import random
import time
from dataclasses import replace
from statistics import median
from typing import Any, Protocol

import torch

from kbopt.core.protocol import EvalProtocol
from kbopt.evaluation.timing import batches, intervals, samples
from kbopt.evaluation.timing.interleaving import Steps
from kbopt.evaluation.timing.workloads import share_of

_CHECKED_SHARE = {"cpu": 0.25, "cuda": 0.5}
"""Share of single calls whose answers are checked. It is larger on a GPU, where a timing may end after 20."""
_EMPTY_SHARE = 0.5
"""Empty requests on a CPU for each timed call. Their median is the cost of a request."""
_MOST_TIMING_SHARE = 0.5
"""A session plans at most as many single calls as fit into this share of the protocol's `timeout_s`."""
_FEWEST_TIMED = 10
"""Single calls in a session at least, however slow they are."""
_PROBES_PER_BLOCK = 0.15
"""Probability of a probe before a block. Probes are not timed, and the candidate cannot tell them apart."""
_FEWEST_PROBES = {"cpu": 3, "cuda": 6}
"""Probes in a session at least. A CPU has three sessions, one in each pair of processes."""
_LAST_PROBES = 2
"""Probes after the last timed call, one of each kind: a kernel can count its calls and compute something
else after the timed ones. Of many workloads each gets one, whose kind is drawn."""
_NUM_WARM_UPS = 3
"""Blocks of each model before the first timed call. On a CPU all but the first are as long as there is room
for, so that the process has memory enough when calls are timed. With single calls, up to eight of them took
pages from the kernel, at five times the time of a call on 8 MB. Of many workloads, which share the process,
each gets `_FEWEST_WARM_UPS`, one of either length."""
_FEWEST_WARM_UPS = 2
_LONG_MS = 250.0
"""If a call of both models together takes longer, one warm-up is enough: a first call's set-up is small
beside it, and three would take long for a task of 300 MiB in every pair of processes."""
_ENOUGH_S = 0.3
"""Seconds after which a session ends once its ratio is settled. Else slow kernels would take many seconds."""
_MOST_S, _FEWEST_UNSETTLED = 4.0, 20
"""Seconds after which a session ends although its ratio is not settled, once it has so many single calls. The
interval then says so. Calls of 100 ms whose launches scatter by a tenth held a GPU for 24 s."""
_SETTLED = {"cpu": 0.015, "cuda": 0.005}
"""Relative standard error of a settled ratio: on a CPU about a quarter of the scatter between processes."""
_BATCH_MS = 2.0
"""Milliseconds of work in a batch: a thousand kernels of 2 us, as many as a stream holds without blocking."""
_NUM_ONES = 5
"""Batches of one call, of which the shortest counts (decision 35)."""
_NUM_SLOW_ONES = 3
"""Batches of one call, for kernels that take longer than `_SLOW_MS`."""
_MOST_ONES = 25
"""Batches of one call at most, for a candidate that they charge."""
_CHARGED_S = 0.3
"""Seconds for further batches of one call while those so far would charge the candidate. Another process that
starts or ends slows the device's memory for 0.1 s; work that a candidate hides is in every batch."""
_SHORTEST_BATCH = 4
"""Calls in a batch that is tried if longer batches are late: a stream holds a thousand kernels and events."""
_NUM_LONGER = 5
"""Longer batches, of which the median counts: in the first one the workers' allocators may still grow."""
_NUM_CHECKED = 4
"""Answers that are checked in a longer batch."""
_SLOW_MS = 1.0
"""Milliseconds. A slower kernel gets `_NUM_SLOW_ONES` batches of one call; a slower reference gets none."""
_SHORT_MS = 0.25
"""Milliseconds. Faster kernels also run in longer batches, because 4 us of tolerance are much beside them."""
_FEWEST_ALONE = 3
"""Single calls of the reference, after a first one, before the candidate's code is loaded; at most
`_MOST_ALONE`, and more than these only within `_ENOUGH_ALONE_S` seconds."""
_MOST_ALONE = 8
_ENOUGH_ALONE_S = 0.05
_FEWEST_LATENCIES = 7
"""Pairs of synchronised calls; at most `_MOST_LATENCIES`, and more than these only within
`_ENOUGH_LATENCIES_S` seconds."""
_MOST_LATENCIES = 30
_ENOUGH_LATENCIES_S = 0.15
_NUM_CALIBRATIONS = 3
"""Batches of copies of each kind, of which the shortest counts: other processes only add to a time."""


Draw = Any
"""One set of inputs, as `Models` draws them."""


class Models(Protocol):
    """Runs blocks of at most `most_calls` calls of both models, on `draws`, and checks answers.

    Methods that call the candidate check `checked` of its answers, at random, and raise the judge's `Refused`
    for a wrong one. With `marked` the block has times by the worker's clock.
    """

    @property
    def most_calls(self) -> int: ...

    def draw(self) -> Draw: ...

    def cached_ms(self) -> float:
        """Milliseconds that a call on a GPU saves because its output may stay in the L2 cache."""

    def reference_block(self, draws: list[Draw]) -> samples.Block: ...

    def empty_block(self, draws: list[Draw]) -> samples.Block: ...

    def reference_batch(self, draws: list[Draw]) -> samples.Block: ...

    def copies_batch(self, draws: list[Draw], *, marked: bool = False) -> samples.Block: ...

    def candidate_block(self, draws: list[Draw], *, checked: int) -> samples.Block: ...

    def candidate_batch(self, draws: list[Draw], *, checked: int) -> samples.Block: ...

    def latencies(self) -> tuple[samples.Block, samples.Block]: ...

    def travelling_probe(self, number: int) -> None: ...


class Sessions:
    """The sessions of one candidate on one workload of `num_workloads`.

    `device` is `cpu` or `cuda`. Call `calibrate` before the candidate's code is loaded, and `warm_up` before
    the first `run`. The steps of several workloads may be interleaved.
    """

    def __init__(
        self,
        models: Models,
        device: str,
        protocol: EvalProtocol,
        rng: random.Random,
        num_workloads: int = 1,
    ) -> None:
        self._models = models
        self._device = device
        self._protocol = protocol
        self._rng = rng
        self._on_cpu = device == "cpu"
        self._slowest_ms = 0.0
        self._alone: batches.Alone | None = None
        self._num_probes = rng.randrange(2)
        self._num_workloads = num_workloads
        self._share = share_of(num_workloads)

    def scatters_of(self, session: samples.Session) -> tuple[intervals.Scatter, intervals.Scatter]:
        """Return the scatter of the candidate's times and that of the reference's."""
        if self._on_cpu:
            return intervals.CPU_SCATTER, intervals.CPU_SCATTER
        return session.gpu_scatters

    def calibrate(self) -> None:
        """Measure the reference and the overhead of batches on a GPU; on a CPU do nothing.

        It has to happen before the candidate's code is loaded. A GPU cannot be paused, so work that a
        candidate leaves running could lengthen both times later.
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
        reference_ms = median(samples.single_ms(singles[1:]))  # The first one after a while is slower.
        alone = batches.Alone(reference_ms=reference_ms, copies=copies, around=around)
        self._alone = replace(alone, waiting_ms=self._waiting_ms(draws[:1], around.of(1) + reference_ms))

    def _waiting_ms(self, draws: list[Draw], known_ms: float) -> float | None:
        """Return `Alone.waiting_ms`. Otherwise a batch of one call of the reference takes `known_ms`."""
        blocks = [self._models.reference_batch(draws)]
        while blocks[-1].is_late and len(blocks) < _NUM_ONES:
            blocks.append(self._models.reference_batch(draws))
        return max(0.0, median(block.wall_ms for block in blocks) - known_ms) if blocks[-1].is_late else None

    def _around_batches(self, draws: list[Draw]) -> tuple[samples.Overhead, samples.Overhead]:
        """Return the time of batches of copies by the worker's clock, and their overhead without that clock.

        Batches of one call and of the most calls are measured apart. In a longer batch each copy writes back
        what the last one left in the cache, which takes 31 us for 268 MB (decision 35). The first copy finds
        nothing there.
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
        for number in range(max(_FEWEST_WARM_UPS, round(self._share * _NUM_WARM_UPS))):
            length = self._models.most_calls if self._on_cpu and number else 1
            draws = [self._models.draw() for _ in range(length)]
            blocks = (
                self._models.reference_block(draws),
                self._models.candidate_block(draws, checked=0),
            )
            self._slowest_ms = sum(block.wall_ms for block in blocks) / length
            if self._slowest_ms > _LONG_MS:
                break

    def run(self) -> Steps[samples.Session]:
        """Time both models and return the session. Slow models get fewer calls than `protocol.timed`."""
        reference: list[samples.Block] = []
        singles: list[samples.Block] = []
        empty: list[samples.Block] = []
        started = time.perf_counter()
        for _ in range(self._num_timed()):
            if self._rng.random() < _PROBES_PER_BLOCK:
                self._probe()
            draws = [self._models.draw()]
            if self._on_cpu and len(empty) <= _EMPTY_SHARE * len(reference):
                empty.append(self._models.empty_block(draws))
            theirs, ours = self._both_calls(draws)
            reference.append(theirs)
            singles.append(ours)
            yield
            spent_s = time.perf_counter() - started
            times = self._times(reference, singles, empty)
            settled = spent_s > self._of_all(_ENOUGH_S) and samples.is_settled(times, _SETTLED[self._device])
            if settled or (spent_s > self._of_all(_MOST_S) and len(singles) >= _FEWEST_UNSETTLED):
                break
        missing = round(self._share * _FEWEST_PROBES[self._device]) - self._num_probes
        # The candidate does not know that timing is over.
        for _ in range(max(1, round(self._share * _LAST_PROBES), missing)):
            self._probe()
            yield
        if self._models.most_calls > 1:
            # Its time is not used: it checks that outputs of one block do not share memory.
            self._models.candidate_block([self._models.draw() for _ in range(2)], checked=1)
        if self._on_cpu:
            clocks = samples.Clocks(native_ms=median(times.kernel_ms))
            return samples.Session(kernel_ms=times.kernel_ms, reference_ms=times.reference_ms, clocks=clocks)
        if self._alone is None:
            raise RuntimeError("sessions on a GPU are calibrated before the candidate's code is there")
        medians_ms = map(median, (times.reference_ms, times.kernel_ms))
        evidence = yield from self._run_batches(self._alone, *medians_ms)
        return replace(batches.read_gpu_session(reference, singles, evidence, self._alone), settled=settled)

    def _times(
        self, reference: list[samples.Block], singles: list[samples.Block], empty: list[samples.Block]
    ) -> samples.Times:
        threads = torch.get_num_threads()
        theirs_ms, ours_ms = (
            samples.cpu_times_ms(blocks, empty, threads) if self._on_cpu else samples.single_ms(blocks)
            for blocks in (reference, singles)
        )
        return samples.Times(kernel_ms=ours_ms, reference_ms=theirs_ms)

    def _of_all(self, seconds: float) -> float:
        """Return the seconds for all workloads together, if a task's only workload gets `seconds`."""
        return self._share * self._num_workloads * seconds

    def _probe(self) -> None:
        """Run the next probe. The two kinds take turns."""
        self._models.travelling_probe(self._num_probes)
        self._num_probes += 1

    def latency(self) -> Steps[samples.Times | None]:
        """Time pairs of synchronised calls of both models. Return None on a CPU, where all calls are."""
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

    def _num_timed(self) -> int:
        """Return the number of single calls of each model in a session at most."""
        affordable_ms = _MOST_TIMING_SHARE * self._protocol.timeout_s * 1000 / self._num_workloads
        affordable = affordable_ms / max(self._slowest_ms, 1e-3)
        return min(self._protocol.timed, max(_FEWEST_TIMED, int(affordable)))

    def _both_calls(self, draws: list[Draw]) -> tuple[samples.Block, samples.Block]:
        """Run a call of the reference and one of the candidate on the same `draws`, in random order.

        The time of a call depends on what the allocator and the caches saw before it.
        """
        is_checked = self._rng.random() < _CHECKED_SHARE[self._device]
        reference_first = self._rng.random() < 0.5
        if reference_first:
            theirs = self._models.reference_block(draws)
        ours = self._models.candidate_block(draws, checked=int(is_checked))
        if not reference_first:
            theirs = self._models.reference_block(draws)
        return theirs, ours

    def _run_batches(
        self, alone: batches.Alone, reference_ms: float, kernel_ms: float
    ) -> Steps[batches.Evidence]:
        """Run the batches of a session whose single calls take these medians by the workers' clocks."""
        number = _NUM_ONES if kernel_ms <= _SLOW_MS else _NUM_SLOW_ONES
        started = time.perf_counter()
        ones = yield from self._batches(alone, 1, number, with_reference=alone.waiting_ms is not None)
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
