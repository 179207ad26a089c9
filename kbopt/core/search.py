"""The search: ask for briefs, tell results, in any order and from any number of explorers.

Whatever happens is an event. A live method records its event in the journal and then applies it;
`replay` applies the same events without recording, so a resumed search equals the one that was killed.
"""

from __future__ import annotations

import hashlib

from kbopt.core.bandit import Action, has_tunables
from kbopt.core.costs import Rent, Usage
from kbopt.core.evaluations import Result
from kbopt.core.events import (
    FULL_REPEAT,
    Asked,
    Attempted,
    Ended,
    Evaluated,
    Event,
    FullForgone,
    Granted,
    ProposalFailed,
    Proposed,
    Rented,
    Summarized,
    TaskProfiled,
)
from kbopt.core.kernel_strategies import Bound, next_strategy
from kbopt.core.ports import Embedder, Journal
from kbopt.core.proposals import Brief, Candidate, NoProposal, Trial
from kbopt.core.scoring import mean_score
from kbopt.core.search_state import SearchState
from kbopt.core.settings import SearchSettings
from kbopt.core.tally import amount
from kbopt.core.task import Task
from kbopt.core.text import plural
from kbopt.core.work import Done, Ready, Stuck, SummaryRequest, Wait

NUM_SUMMARY_TRIALS = 8
"""How many of the best, and how many of the newest failures, a summary is made from."""


class Search(SearchState):
    """One search over one task. Not thread-safe; call it from one thread or event loop."""

    def __init__(
        self, *, task: Task, settings: SearchSettings, journal: Journal, embedder: Embedder | None = None
    ) -> None:
        super().__init__(task=task, settings=settings, embedder=embedder)
        self._journal = journal

    def ask(self, *, elapsed_s: float = 0.0) -> Brief | Wait | Done:
        """The next brief. `elapsed_s` is how long the search has run, for the budget of minutes.

        A budget of evaluations is never exceeded, the other budgets by no more than what is in flight.
        """
        self._decide()
        reason = self._ended or self._hopeless() or self.exhausted(elapsed_s)
        if reason and self.num_in_flight:
            return Wait(reason=reason)
        if reason and self._ended is None and self._failed_row and (self._hopeless() or not self._proposed):
            return self._stuck(reason)
        if reason:
            self.end(reason)
            return Wait(reason=reason) if self.num_in_flight else Done(reason=reason)
        if not self._may_evaluate():
            return Wait(reason="its part of the sweep's budget is used")
        number = self._tally.asked + 1
        seed = _seed(self._settings.seed, number)
        choice = self._strategy.choose(seed)
        if isinstance(choice, str):
            return Wait(reason=choice)
        brief = f"c{number:06d}"
        self._record(
            Asked(
                brief=brief,
                parent=choice.parent,
                exemplars=choice.exemplars,
                summary_version=len(self._summaries),
                seed=seed,
                memory_version=self._tally.results,
                action=self._action(choice.parent, seed),
                strategy=self._next_strategy() if choice.parent is None else "",
            )
        )
        return self._outstanding[brief]

    @property
    def wants_bounds(self) -> bool:
        """Whether the next brief will ask for a strategy, and what limits the task is not known yet."""
        return bool(self._strategies) and self._bounds is None and not self._trials and self._ended is None

    def take_bounds(self, bounds: tuple[Bound, ...]) -> None:
        """Take what limits the task, empty where nobody knows. Ignored unless it is wanted."""
        if self.wants_bounds:
            self._record(TaskProfiled(bounds=bounds))

    def outstanding(self) -> tuple[Brief, ...]:
        """Briefs without an answer, oldest first, equal to what `ask` returned."""
        return tuple(self._outstanding.values())

    def propose(self, candidate: Candidate) -> None:
        """Answer the brief `candidate.id` with a source. Ignored if the brief has an answer already."""
        if self._unanswered(candidate.id):
            self._record(Proposed(candidate=candidate))
            self._decide()

    def attempt(self, brief_id: str, source: str, *, proposer: str, note: str) -> Candidate | str:
        """Have `source` evaluated on the way to the answer of a brief, or why not.

        A source that was attempted for the brief before is that attempt.
        """
        if not self._unanswered(brief_id):
            return f"the brief {brief_id} has its answer already"
        for known in self._attempts.get(brief_id, ()):
            if self._proposed[known].source == source:
                return self._proposed[known]
        if self._ended is not None:
            return f"the search is over: {self._ended}"
        # The evaluation that is kept for a brief's answer goes to its first attempt.
        if brief_id in self._attempts and not self._may_evaluate():
            if self.lacks_evaluations:
                most = self.budget.evaluations or 0
                return f"the search's budget of {plural(most, 'evaluation')} is used"
            return f"the search's part of the sweep's dollars, {amount(self.budget.usd or 0.0)}, is spent"
        brief = self._outstanding[brief_id]
        candidate = Candidate(
            id=f"{brief_id}-{len(self._attempts.get(brief_id, ())) + 1}",
            source=source,
            parent=brief.parent.candidate.id if brief.parent else None,
            proposer=proposer,
            memory_version=brief.memory_version,
            note=note,
        )
        self._record(Attempted(brief=brief_id, candidate=candidate))
        return candidate

    def attempts(self, brief_id: str) -> tuple[Trial, ...]:
        """What was attempted for a brief and has a result, oldest first."""
        return tuple(self._trials[key] for key in self._attempts.get(brief_id, ()) if key in self._trials)

    def fail(self, brief_id: str, answer: NoProposal) -> None:
        """Answer a brief with nothing. Ignored if the brief has an answer already."""
        if self._unanswered(brief_id):
            failed = ProposalFailed(
                brief=brief_id, reason=answer.reason, usage=answer.usage, blame=answer.blame
            )
            self._record(failed)
            self._decide()

    def take_ready(self) -> tuple[Ready, ...]:
        """What is to be evaluated now, each once; after a replay, whatever has no result yet."""
        self._decide()
        ready, self._ready = tuple(self._ready.values()), {}
        return ready

    def tell(self, candidate_id: str, result: Result, *, repeat: int = 0, cached: bool = False) -> None:
        """Take a result, in any order. Ignored if this measurement has a result already."""
        if candidate_id not in self._proposed:
            raise ValueError(f"{candidate_id!r} was never proposed to this search of {self._task.name}")
        if (candidate_id, repeat) in self._pending:
            self._record(Evaluated(candidate=candidate_id, result=result, repeat=repeat, cached=cached))
            self._decide()

    def forgo_full(self, candidate_id: str, reason: str) -> None:
        """The winner's full evaluation cannot be made. Ignored unless it is awaited."""
        if (candidate_id, FULL_REPEAT) in self._pending:
            self._record(FullForgone(candidate=candidate_id, reason=reason))

    def pay_rent(self, rent: Rent) -> None:
        """Take what a rented device cost since the last time, also after the search's end."""
        self._record(Rented(rent=rent))

    def summary_due(self) -> SummaryRequest | None:
        """A request for a summary, once per step's worth of results; none while one is being made.

        None either where no further brief may be written: nobody would read it, and it would be paid for.
        """
        version, step = self._tally.results, self._settings.num_candidates * self._settings.num_proposals
        last = self._summaries[-1].memory_version if self._summaries else 0
        if not self._settings.uses_summarizer or self._summary_version is not None or version - last < step:
            return None
        if self._ended or self.exhausted(elapsed_s=0.0):
            return None
        self._summary_version = version
        failures = tuple(self._trials[key] for key in self._failures[-NUM_SUMMARY_TRIALS:])
        best = tuple(trial for trial in self.top(NUM_SUMMARY_TRIALS) if mean_score(trial) > 0.0)
        return SummaryRequest(trials=best + failures, previous=self._summary(), memory_version=version)

    def summarized(self, text: str, usage: tuple[Usage, ...]) -> None:
        """Answer the last `summary_due`; a summarizer that failed answers with the previous text."""
        if self._summary_version is None:
            raise ValueError("no summary was asked for; call summary_due() first")
        self._record(Summarized(text=text, memory_version=self._summary_version, usage=usage))

    def end(self, reason: str, *, answer: str = "") -> None:
        """Stop asking. Results in flight are still taken, then the best are measured once more, and the best
        of these is evaluated in full. `answer` is measured with them, and taken for the best if it works.
        """
        if self._ended is None:
            self._record(Ended(reason=reason, answer=answer))
            self._decide()

    def grant(self, *, evaluations: int = 0, usd: float = 0.0) -> None:
        """Allow so many more evaluations and dollars. Only for a search whose budget grows."""
        if not self._settings.budget.grows:
            raise ValueError(f"the budget of this search of {self._task.name} does not grow")
        self._record(Granted(evaluations=evaluations, usd=usd))

    def _record(self, event: Event) -> None:
        self._journal.append(event)
        self.apply(event)

    def _decide(self) -> None:
        """Record the decisions that are due: proposals to drop, measurements to repeat."""
        if self._strategy.undecided():
            for drop in tuple(self._strategy.drops()):
                self._record(drop)
            self._admit()
        while self._may_evaluate():
            again = self._strategy.remeasure(allowed=self._may_remeasure())
            if again is None:
                break
            self._record(again)
        if self._ended is not None and not self._pending:
            for final in self._finals_due():
                self._record(final)

    def _stuck(self, reason: str) -> Stuck:
        last = self._failed_row[-1]
        return Stuck(
            reason=f"no kernel came of the last {len(self._failed_row)} proposals ({reason}). The last one "
            f"failed because: {last.reason.rstrip('.')}. Mend that and go on with kbopt resume.",
            is_service=last.blame == "service",
        )

    def _may_remeasure(self) -> bool:
        share = self._settings.remeasure_share
        return self._tally.remeasurements + 1 <= share * (self._tally.evaluations + 1)

    def _action(self, parent: str | None, seed: int) -> Action:
        if not self._settings.refinement or parent is None:
            return "propose"
        return self._bandit.choose(seed) if has_tunables(self._proposed[parent].source) else "propose"

    def _next_strategy(self) -> str:
        """The name of the strategy by which the next first kernel is asked for, if by any."""
        if not self._strategies:
            return ""
        known = tuple(self._strategies.values())
        return next_strategy(known, self._strategies_used, self._bounds or (), self._settings.seed).name

    def _unanswered(self, brief_id: str) -> bool:
        if brief_id not in self._actions:
            raise ValueError(f"{brief_id!r} is not a brief of this search of {self._task.name}")
        return brief_id in self._outstanding


def _seed(seed: int, number: int) -> int:
    """63 bits for proposal `number`: independent of every other, with no generator's state to keep."""
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
