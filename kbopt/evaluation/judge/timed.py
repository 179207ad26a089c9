"""What `timing.schedule` asks for: blocks and batches of calls of both models, some of them checked."""

from __future__ import annotations

import random
from collections.abc import Callable

from kbopt.evaluation.judge import roofline
from kbopt.evaluation.judge.calls import Calls
from kbopt.evaluation.judge.checks import Checks
from kbopt.evaluation.judge.reference import Draw, Reference
from kbopt.evaluation.judge.worker import Exchange
from kbopt.evaluation.timing import samples

_PRECISION_SHARE = 0.4
"""Of the timed calls that are checked: their float64 answers take as long as several calls."""
_CHECKED_LATENCIES = 0.4


class TimedModels:
    """The reference and the candidate of one judgement, as a schedule has them called."""

    def __init__(self, calls: Calls, checks: Checks, reference: Reference, rng: random.Random) -> None:
        self._calls = calls
        self._checks = checks
        self._reference = reference
        self._rng = rng
        self.draw = calls.draw
        self.travelling_probe = checks.travelling_probe

    @property
    def most_calls(self) -> int:
        return self._calls.most_calls

    def cached_ms(self) -> float:
        return roofline.cached_ms(self._reference)

    def reference_block(self, draws: list[Draw]) -> samples.Block:
        """Calls of the reference, played by a child just as the candidate is."""
        return self._calls.of_reference(lambda worker: worker.exchange("run", draws))

    def reference_batch(self, draws: list[Draw]) -> samples.Block:
        return self._calls.of_reference(lambda worker: worker.batch("run", draws))

    def copies_batch(self, draws: list[Draw], *, marked: bool = False) -> samples.Block:
        """Of a copy in the reference's place, in the reference's child."""
        sizes = self._reference.output_sizes
        return self._calls.of_reference(
            lambda worker: worker.batch("rehearse", draws, marked=marked, output_bytes=sizes)
        )

    def candidate_block(self, draws: list[Draw], *, checked: int) -> samples.Block:
        """Calls of the candidate, of which as many as `checked` have to be right, nobody knows which."""
        return self._of_candidate(self._calls.worker.exchange, draws, checked)

    def latencies(self) -> tuple[samples.Block, samples.Block]:
        """One call of either model as its caller sees it, on the same inputs, in either order."""
        draws = [self._calls.draw()]

        def ours() -> samples.Block:
            checked = int(self._rng.random() < _CHECKED_LATENCIES)
            return self._of_candidate(self._calls.worker.exchange, draws, checked, "latency")

        def theirs() -> samples.Block:
            return self._calls.of_reference(lambda worker: worker.exchange("latency", draws))

        if self._rng.random() < 0.5:
            return theirs(), ours()
        block = ours()
        return theirs(), block

    def candidate_batch(self, draws: list[Draw], *, checked: int) -> samples.Block:
        return self._of_candidate(self._calls.worker.batch, draws, checked)

    def _of_candidate(
        self,
        ask: Callable[[str, list[Draw]], Exchange],
        draws: list[Draw],
        checked: int,
        operation: str = "run",
    ) -> samples.Block:
        chosen = self._rng.sample(range(len(draws)), min(checked, len(draws)))
        exchange = ask(operation, draws)
        for index, got in zip(chosen, self._calls.outputs_of(exchange, draws, chosen), strict=True):
            own = self._calls.own_answer(draws[index])
            self._checks.require_right(got, own, own, draws[index])
            if self._reference.has_exact and self._rng.random() < _PRECISION_SHARE:
                self._checks.require_precise(got, own, draws[index])
        return exchange.block
