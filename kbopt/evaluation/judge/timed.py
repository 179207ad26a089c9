"""Runs the blocks and batches that `timing.schedule` asks for, and checks some of the answers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from kbopt.evaluation.judge import roofline
from kbopt.evaluation.judge.calls import Calls
from kbopt.evaluation.judge.checks import Checks
from kbopt.evaluation.judge.reference import Draw, Reference
from kbopt.evaluation.judge.worker import Exchange, Worker
from kbopt.evaluation.timing import samples

_PRECISION_SHARE, _SELDOM = 0.4, 0.1
"""Shares of the checked timed calls whose precision is checked too: at first, and once `_MUCH_S` seconds went
into that. A float64 answer takes as long as several calls, that of a three-dimensional transposed convolution
as long as a hundred."""
_MUCH_S = 2.0
_CHECKED_LATENCIES = 0.4
"""Share of the calls for latency whose answers are checked."""


class TimedModels:
    """The reference and the candidate of one judgement, as `timing.schedule.Models`."""

    def __init__(self, calls: Calls, checks: Checks, reference: Reference, rng: random.Random) -> None:
        self._calls = calls
        self._checks = checks
        self._reference = reference
        self._rng = rng
        self._precise_s = 0.0
        self.draw = calls.draw
        self.travelling_probe = checks.travelling_probe

    @property
    def most_calls(self) -> int:
        return self._calls.most_calls

    def cached_ms(self) -> float:
        return roofline.cached_ms(self._reference)

    def reference_block(self, draws: list[Draw]) -> samples.Block:
        return self._calls.of_reference(lambda worker: worker.exchange("run", draws))

    def reference_batch(self, draws: list[Draw]) -> samples.Block:
        return self._calls.of_reference(lambda worker: worker.batch("run", draws))

    def empty_block(self, draws: list[Draw]) -> samples.Block:
        """Time a request to the reference's worker that it answers at once, on a CPU."""
        return self._calls.of_reference(lambda worker: worker.exchange("echo", draws))

    def copies_batch(self, draws: list[Draw], *, marked: bool = False) -> samples.Block:
        """Time a batch of plain copies in the reference's worker, with as many bytes of outputs."""
        sizes = self._reference.output_sizes
        return self._calls.of_reference(
            lambda worker: worker.batch("rehearse", draws, marked=marked, output_bytes=sizes)
        )

    def candidate_block(self, draws: list[Draw], *, checked: int) -> samples.Block:
        return self._of_candidate(lambda worker: worker.exchange("run", draws), draws, checked)

    def latencies(self) -> tuple[samples.Block, samples.Block]:
        """Time one synchronised call of each model on the same inputs, in random order.

        Returns the reference's block first.
        """
        draws = [self._calls.draw()]

        def ours() -> samples.Block:
            checked = int(self._rng.random() < _CHECKED_LATENCIES)
            return self._of_candidate(lambda worker: worker.exchange("latency", draws), draws, checked)

        def theirs() -> samples.Block:
            return self._calls.of_reference(lambda worker: worker.exchange("latency", draws))

        if self._rng.random() < 0.5:
            return theirs(), ours()
        block = ours()
        return theirs(), block

    def candidate_batch(self, draws: list[Draw], *, checked: int) -> samples.Block:
        return self._of_candidate(lambda worker: worker.batch("run", draws), draws, checked)

    def _of_candidate(
        self, ask: Callable[[Worker], Exchange], draws: list[Draw], checked: int
    ) -> samples.Block:
        chosen = self._rng.sample(range(len(draws)), min(checked, len(draws)))
        exchange = ask(self._calls.worker)
        for index, got in zip(chosen, self._calls.outputs_of(exchange, draws, chosen), strict=True):
            own = self._calls.own_answer(draws[index])
            self._checks.require_close(got, own, draws[index])
            share = _PRECISION_SHARE if self._precise_s < _MUCH_S else _SELDOM
            if self._reference.has_exact and self._rng.random() < share:
                started = time.perf_counter()
                self._checks.require_precise(got, own, draws[index])
                self._precise_s += time.perf_counter() - started
        return exchange.block
