"""One search under way: its journal, its clock, and the work that is out with explorers."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass

from kbopt.cluster.messages import Answer, Factories, Failure, SearchSpec, SearchStatus
from kbopt.core.errors import InfraError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.events import BackendStarted, Entry, Evaluated, Opened, Proposed, active_s
from kbopt.core.pacing import InFlightLimit
from kbopt.core.ports import Attempt
from kbopt.core.proposals import Brief
from kbopt.core.scoring import standing
from kbopt.core.search import Search
from kbopt.core.spending import Account, Portion
from kbopt.core.work import Ready, Stuck, SummaryRequest
from kbopt.store.journal import SqliteJournal

JOURNAL_FREE_S = 30.0
"""How long a coordinator that was killed may take to let go of its journals."""

CATCH_UP_S = 30.0
"""For how long a search that goes on asks for nothing new while evaluations that it left behind are open. A
spool or a rented device may have their results, and what is asked before they are read is asked blind. A
spool is open after 6 s; the rest is for a busy machine."""


@dataclass(frozen=True, slots=True)
class _Held:
    explorer: str
    until: float


class RunningSearch:
    """One search with its journal, its clock and the work that is out.

    `settle` lets go of everything but the status once the search is over, so that a sweep's memory is that
    of the searches under way.
    """

    def __init__(self, spec: SearchSpec, factories: Factories) -> None:
        self.spec = spec
        self.journal = SqliteJournal(spec.journal, wait_s=JOURNAL_FREE_S)
        embedder = factories.embedder(spec) if spec.settings.uses_epsilon_net else None
        self._waiting_embedder = embedder if embedder and embedder.waits else None
        self.search = Search(task=spec.task, settings=spec.settings, journal=self.journal, embedder=embedder)
        entries = list(self.journal.entries())
        self._unembedded = [e.event.candidate.source for e in entries if isinstance(e.event, Proposed)]
        self.search.replay(entry.event for entry in entries)
        self._catches_up = self.search.num_in_flight > len(self.search.outstanding())
        self._catches_up_until = math.inf
        self.failure: Failure | None = None
        self.held: dict[str, _Held] = {}
        self.looks = False  # at what limits the task
        self.attempting: dict[str, asyncio.Future[Attempt]] = {}
        self.summary: SummaryRequest | None = None
        self.summary_held: _Held | None = None
        self.evaluating = 0
        self.pacing = InFlightLimit(largest=spec.settings.max_in_flight)
        self.device_s = sum(_device_s(entry) for entry in entries)
        self._boots = {e.event.boot for e in entries if isinstance(e.event, BackendStarted)}
        self._previous_s = active_s(entries)
        self._opened_at = time.monotonic()
        self._final: SearchStatus | None = None
        session = 1 + sum(isinstance(entry.event, Opened) for entry in entries)
        if self.running:
            self.journal.append(Opened(session=session))

    @property
    def wants_more(self) -> bool:
        """Whether it waits for more of what its sweep shares."""
        return self.running and self.search.wants_more

    def account(self) -> Account:
        """The search as the budget of its sweep sees it."""
        progress = self.status().progress
        used = progress.evaluations + progress.in_flight
        usd_each = progress.usd / max(1, progress.evaluations)
        if not self.running or self.search.is_ending:
            return Account(state="over", evaluations=used, usd=progress.usd, usd_each=usd_each)
        limits = self.search.budget
        usd = max(progress.usd, limits.usd or 0.0)
        affordable = used + int((usd - progress.usd) / usd_each) if usd_each else used
        gain, steady = self.search.gains
        return Account(
            state="waiting" if self.wants_more else "going",
            evaluations=affordable if limits.evaluations is None else limits.evaluations,
            usd=usd,
            usd_each=usd_each,
            lacks_evaluations=self.search.lacks_evaluations,
            lacks_usd=limits.usd is not None and progress.usd >= limits.usd,
            gain=gain,
            steady=steady,
        )

    def grant(self, portion: Portion) -> None:
        """Let it use `portion` more of its sweep's budget."""
        overspent = self.search.progress.usd - (self.search.budget.usd or 0.0) if portion.usd else 0.0
        self.search.grant(evaluations=portion.evaluations, usd=portion.usd + max(0.0, overspent))

    @property
    def running(self) -> bool:
        return self._final is None and self.failure is None and self.search.ended is None

    @property
    def settled(self) -> bool:
        """Whether the journal has been let go."""
        return self._final is not None

    @property
    def elapsed_s(self) -> float:
        return self._previous_s + time.monotonic() - self._opened_at

    def lease(self, explorer: str) -> Brief | SummaryRequest | None:
        """Work for `explorer`, or None while the search waits for results."""
        held = _Held(explorer, time.monotonic() + self.spec.lease_s)
        self.summary = self.summary or self.search.summary_due()
        if self.summary and _is_over(self.summary_held):
            self.summary_held = held
            return self.summary
        for brief in self.search.outstanding():
            if _is_over(self.held.get(brief.id)):
                self.held[brief.id] = held
                return brief
        if self.search.wants_bounds or self._waits_for_its_past():
            return None
        synchronous = self.spec.settings.synchronous  # its barriers are pauses enough
        if not synchronous and self.search.num_in_flight >= self.pacing.limit:
            return None
        asked = self.search.ask(elapsed_s=self.elapsed_s)
        if isinstance(asked, Stuck):
            self.failure = Failure(kind="infra" if asked.is_service else "user", message=asked.reason)
        if not isinstance(asked, Brief):
            return None
        self.held[asked.id] = held
        return asked

    def _waits_for_its_past(self) -> bool:
        """Whether results that its former self asked for may come before the next brief is written.

        The time runs from the first brief that is wanted: explorers may start long after the coordinator.
        """
        now = time.monotonic()
        self._catches_up_until = min(self._catches_up_until, now + CATCH_UP_S)
        self._catches_up = self._catches_up and self.evaluating > 0 and now < self._catches_up_until
        return self._catches_up

    @property
    def waits_for_embeddings(self) -> bool:
        """True where `embed` is to be called, in a thread, before a source is proposed to the search."""
        return self._waiting_embedder is not None

    def embed(self, source: str) -> None:
        """Ask for what the search will want to know of `source` and of those before it. Blocks."""
        if self._waiting_embedder is not None:
            self._waiting_embedder.embed([*self._unembedded, source])
            self._unembedded.clear()

    def request(self, ready: Ready) -> EvalRequest:
        """What the evaluator is asked of a source."""
        return EvalRequest(
            task=self.spec.task,
            source=ready.candidate.source,
            protocol=self.spec.protocol,
            repeat=ready.repeat,
            kernelbench=ready.is_full or self.spec.kernelbench,
            baselines=ready.is_full,
        )

    def give_up_attempts(self, reason: str) -> None:
        """Whoever waits for a judgement of a search that has ended hears so."""
        for waiting in self.attempting.values():
            waiting.set_exception(InfraError(reason))
            waiting.exception()  # nobody may be waiting any more
        self.attempting.clear()

    def release(self, explorer: str) -> None:
        """Forget what `explorer` held; it is handed out again."""
        self.held = {brief: held for brief, held in self.held.items() if held.explorer != explorer}
        if self.summary_held and self.summary_held.explorer == explorer:
            self.summary_held = None

    def note(self, answer: Answer) -> None:
        """Journal what an evaluation met and cost, apart from its result."""
        for failure in answer.failures:
            self.journal.append(failure)
        if answer.rent is not None:
            self.search.pay_rent(answer.rent)
        if not answer.cached:
            self.device_s += answer.result.device_s

    def saw_boot(self, boot: str, device: str, *, cold: bool) -> None:
        if boot not in self._boots:
            self._boots.add(boot)
            self.journal.append(BackendStarted(boot=boot, device=device, cold=cold))

    def settle(self) -> None:
        """Keep the status alone once the search has ended and nothing of it is being evaluated."""
        if self._final is None and self.search.ended is not None and not self.evaluating:
            self._final = self.status()
            self.journal.close()
            del self.search
            self.held.clear()

    def close(self) -> None:
        """Let the journal go; the status stays as it is. May be called again."""
        if self._final is None:
            self._final = self.status()
            self.journal.close()

    def status(self) -> SearchStatus:
        if self._final is not None:
            return self._final
        best = self.search.best
        return SearchStatus(
            name=self.spec.name,
            task=self.spec.task.name,
            algorithm=self.spec.settings.algorithm,
            seed=self.spec.settings.seed,
            progress=self.search.progress,
            elapsed_s=self.elapsed_s,
            device_s=self.device_s,
            best=standing(best) if best else None,
            ended=self.search.ended,
            failure=self.failure,
            budget=self.search.budget,
            max_proposals=self.search.max_proposals,
        )


def _is_over(held: _Held | None) -> bool:
    return held is None or held.until < time.monotonic()


def _device_s(entry: Entry) -> float:
    event = entry.event
    return event.result.device_s if isinstance(event, Evaluated) and not event.cached else 0.0
