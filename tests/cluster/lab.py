"""A sweep in one event loop: coordinator, explorers and queue as they are, a scripted device, no Ray."""

import asyncio
import itertools
from collections import Counter
from pathlib import Path

from kbopt.cluster.coordinator import Coordinator
from kbopt.cluster.evaluator import EvaluationQueue
from kbopt.cluster.explorer import Explorer
from kbopt.cluster.messages import Factories, SearchSpec
from kbopt.core.embedding import LocalEmbedder
from kbopt.core.events import Evaluated, Event
from kbopt.core.proposals import Brief, Candidate, NoProposal
from kbopt.core.protocol import EvalProtocol
from kbopt.core.settings import Budget, SearchSettings
from kbopt.core.task import Task
from kbopt.store.cache import EvaluationCache
from kbopt.store.journal import JournalReader, SqliteJournal
from tests.cluster.test_evaluator import ScriptedBackend


class NumberedProposer:
    """Proposes a source that is unique to the brief; declines every `declines`-th."""

    name = "numbered"

    def __init__(self, declines: int = 0, error: Exception | None = None) -> None:
        self._declines = declines
        self._error = error
        self._count = itertools.count(1)

    async def propose(self, brief: Brief) -> Candidate | NoProposal:
        await asyncio.sleep(0.001)
        if self._error:
            raise self._error
        if self._declines and next(self._count) % self._declines == 0:
            return NoProposal(reason="nothing came to mind")
        return Candidate(
            id=brief.id,
            source=f"x = {brief.seed}",
            parent=brief.parent.candidate.id if brief.parent else None,
            proposer=self.name,
            memory_version=brief.memory_version,
        )


class NoSummaries:
    async def summarize(self, trials: object, previous: str) -> tuple[str, tuple[()]]:
        return "", ()


def spec(folder: Path, name: str = "one", steps: int = 4, budget: Budget | None = None) -> SearchSpec:
    settings = SearchSettings(num_steps=steps, num_candidates=5, seed=7, budget=budget or Budget())
    made = SearchSpec(
        name=name,
        folder=folder / name,
        task=Task(name="t", source=name),
        settings=settings,
        protocol=EvalProtocol(),
    )
    if not made.journal.exists():
        SqliteJournal.create(made.journal, "{}").close()
    return made


def factories(proposer: NumberedProposer) -> Factories:
    return Factories(
        backend=ScriptedBackend,
        proposer=lambda _, __: proposer,
        summarizer=lambda _: NoSummaries(),
        embedder=lambda _: LocalEmbedder(),
    )


class Lab:
    """The parts of a sweep in one event loop, over folders that outlive them."""

    def __init__(self, folder: Path, specs: tuple[SearchSpec, ...], proposer: NumberedProposer) -> None:
        self.backend = ScriptedBackend(service_s=0.005, max_in_flight=2)
        self.queue = EvaluationQueue(
            self.backend, EvaluationCache(folder / "cache.sqlite"), retry_delays_s=(0.0, 0.0)
        )
        self.factories = factories(proposer)
        self.specs = {made.name: made for made in specs}
        self.coordinator = Coordinator(
            specs,
            self.factories,
            self.queue.evaluate,
            self.queue.status,
            self.queue.take_rent,
            parallel_searches=8,
        )

    def explorer(self, index: int, loops: int = 3) -> Explorer:
        return Explorer(index, self.coordinator, self.specs, self.factories, loops)

    async def run(self) -> None:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for index in range(2):
                group.create_task(self.explorer(index).run())

    async def close(self) -> None:
        await self.coordinator.stop("closed", end=False)
        await self.queue.close()


def events(made: SearchSpec) -> list[Event]:
    with JournalReader(made.journal) as reader:
        return [entry.event for entry in reader.entries()]


def evaluated(made: SearchSpec) -> Counter[str]:
    found = (event for event in events(made) if isinstance(event, Evaluated) and event.repeat == 0)
    return Counter(event.candidate for event in found)
