"""The times at which the stages of one evaluation ran, and a judge's findings about one child."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from kbopt.core.evaluations import Seconds, Span
from kbopt.core.outcomes import Crashed, Measured, Outcome, Stage
from kbopt.evaluation.sandbox.memory import is_out_of_memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A judge's findings about one child.

    `measured` has a result for each workload. Until they are combined, `outcome` is the first of them.
    `untried` names the kinds of values for which there was no time.
    """

    outcome: Outcome
    measured: tuple[Measured, ...] = ()
    untried: tuple[str, ...] = ()
    failed_allocations: int = 0
    log: str
    frames: str

    @property
    def lacked_memory(self) -> bool:
        """Whether memory ran out, which other tasks may have held. The candidate may have raised then, or
        PyTorch passed over it.
        """
        raised = isinstance(self.outcome, Crashed) and is_out_of_memory(self.outcome.reason)
        return raised or self.failed_allocations > 0


class Timeline:
    """Collects the spans of one evaluation. The time between them counts as queueing."""

    def __init__(self) -> None:
        self._started = time.time()
        self._spans: list[Span] = []
        self.device_s = 0.0

    @contextmanager
    def span(self, stage: Stage) -> Iterator[None]:
        """Collect the time of the context."""
        started = time.time()
        try:
            yield
        finally:
            self.extend([Span(stage=stage, start=started, seconds=time.time() - started)])

    def extend(self, spans: Sequence[Span]) -> None:
        self._spans += spans

    def spans(self) -> tuple[Span, ...]:
        queue = Span(stage="queue", start=self._started, seconds=self.seconds().queue)
        return (queue, *self._spans)

    def seconds(self) -> Seconds:
        spent = {"compile": 0.0, "check": 0.0, "time": 0.0}
        for span in self._spans:
            spent[span.stage] += span.seconds
        total = max((span.start + span.seconds for span in self._spans), default=time.time()) - self._started
        return replace(Seconds(**spent), queue=max(0.0, total - sum(spent.values())))
