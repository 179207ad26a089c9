"""What the events of a search come to: the only place where its state changes.

Whom to improve next is decided in `kbopt.core.freerun` (asynchronous, the default) or
`kbopt.core.stepwise` (`--synchronous`); how promising a candidate is, in `kbopt.core.memory.priority`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from kbopt.core.bandit import Action, Bandit
from kbopt.core.embedding import LocalEmbedder
from kbopt.core.epsilon_net import EpsilonNet
from kbopt.core.events import (
    FINAL_REPEAT,
    FULL_REPEAT,
    Asked,
    Attempted,
    Dropped,
    Ended,
    Evaluated,
    Event,
    FullForgone,
    Granted,
    ProposalFailed,
    Proposed,
    Raised,
    RemeasureAsked,
    Rented,
    Summarized,
    TaskProfiled,
)
from kbopt.core.finals import finalists, finals_due, winner
from kbopt.core.freerun import FreeRun
from kbopt.core.kernel_strategies import Bound, suitable
from kbopt.core.ports import Embedder
from kbopt.core.proposals import Brief, Candidate, Trial
from kbopt.core.raising import raised
from kbopt.core.scoring import mean_score
from kbopt.core.settings import Budget, SearchSettings
from kbopt.core.spending import expected_gain, steady_gain
from kbopt.core.stepwise import Stepwise
from kbopt.core.strategy import Strategy
from kbopt.core.tally import Progress, Tally
from kbopt.core.targets import reached, sure_share
from kbopt.core.task import Task
from kbopt.core.text import plural
from kbopt.core.work import Ready

MAX_FAILED_AT_FIRST = 8
"""Proposals that may fail before the first kernel: each was asked up to three times."""

MAX_FAILED_IN_A_ROW = 16
"""Proposals of models that may fail one after the other later on."""

NUM_LEADING = 64
"""Among how many of the best finalists are looked for, as equal sources are one, and the target reached."""


class SearchState:
    """The fold of a search's events, and what can be read of it.

    Without an `embedder` the local one is used, where the algorithm has an epsilon-net at all.
    """

    def __init__(self, *, task: Task, settings: SearchSettings, embedder: Embedder | None = None) -> None:
        self._task = task
        self._settings = settings
        self._trials: dict[str, Trial] = {}
        self._tally = Tally()
        self._bandit = Bandit()
        self._actions: dict[str, Action] = {}
        self._outstanding: dict[str, Brief] = {}
        self._proposed: dict[str, Candidate] = {}
        self._pending: dict[tuple[str, int], Ready] = {}
        self._ready: dict[tuple[str, int], Ready] = {}
        self._attempts: dict[str, list[str]] = {}
        self._failures: list[str] = []
        self._failed_row: list[ProposalFailed] = []
        self._forgiven = 0
        self._summaries: list[Summarized] = []
        self._summary_version: int | None = None
        self._ended: str | None = None
        self._answer = ""
        self._finalists: list[str] = []
        self._full_asked: set[str] = set()
        self._course: list[float] = []
        self._bounds: tuple[Bound, ...] | None = None
        suits = () if settings.synchronous else suitable(settings.strategies, task.source)
        self._strategies = {one.name: one for one in suits}
        self._strategies_used: Counter[str] = Counter()
        self._unmeasured: dict[str, str] = {}  # Briefs whose kernels have no result, and their parents.
        net = EpsilonNet(embedder or LocalEmbedder(), settings.epsilon) if settings.uses_epsilon_net else None
        strategy = Stepwise if settings.synchronous else FreeRun
        self._strategy: Strategy = strategy(settings, self._trials, net)

    # What can be read at any time.

    @property
    def budget(self) -> Budget:
        """What it may use: its own, with what was granted."""
        return self._tally.allowed(self._settings.budget)

    @property
    def max_proposals(self) -> int:
        return self._settings.num_total_proposals

    @property
    def is_ending(self) -> bool:
        """Whether it asks for nothing more, though results may be in flight."""
        return self._ended is not None

    @property
    def wants_more(self) -> bool:
        """Whether it could go on, but for what it may use of a sweep's budget. Nothing is in flight then."""
        if not self._settings.budget.grows or self._ended is not None or self.num_in_flight:
            return False
        return not (self._may_evaluate() or self._hopeless() or self.exhausted(elapsed_s=0.0))

    @property
    def lacks_evaluations(self) -> bool:
        """Whether the evaluations that it may use are used or in flight."""
        limit = self.budget.evaluations
        unanswered = sum(brief not in self._attempts for brief in self._outstanding)
        committed = self._tally.evaluations + len(self._pending) + unanswered + self._strategy.num_waiting
        return limit is not None and committed >= limit

    @property
    def gains(self) -> tuple[float, float]:
        """What `kbopt.core.spending` expects of it: `expected_gain` and `steady_gain`."""
        share = sure_share(self.best) if self.best else 0.0
        return expected_gain(self._course, share), steady_gain(share)

    @property
    def best(self) -> Trial | None:
        """The working kernel with the highest mean score so far; once there are final scores, the first of
        those by `final_rank`.
        """
        finals = [trial for key in self._finalists if (trial := self._trials[key]).num_finals]
        if finals:
            return winner(finals, self._answer)
        return self._trials[self._strategy.best] if self._strategy.best else None

    @property
    def ended(self) -> str | None:
        """Why the search is over; None while it runs or a source, or a finalist, is still to be evaluated."""
        if self._ended is None or self._pending or self._finals_due():
            return None
        return self._ended

    @property
    def progress(self) -> Progress:
        speedup = mean_score(self.best) if self.best else None
        return self._tally.progress(best_speedup=speedup, in_flight=self.num_in_flight)

    @property
    def num_in_flight(self) -> int:
        """Briefs without an answer and sources without a result."""
        return len(self._outstanding) + len(self._pending)

    def top(self, k: int) -> tuple[Trial, ...]:
        """The `k` candidates with the highest mean scores, best first; fewer where there are fewer."""
        return self._strategy.top(k)

    # Events: the only place where state changes.

    def replay(self, events: Iterable[Event]) -> None:
        """Apply what a journal holds, before anything else is called. Records nothing.

        Proposals that failed for a cause that stopped the search are asked for once more: it may be mended.
        """
        for event in events:
            self.apply(event)
        if self._hopeless() or not self._proposed:
            self._forgiven = len(self._failed_row)
        self._failed_row.clear()
        if self._strategy.undecided() and not any(self._strategy.drops()):
            self._admit()

    def apply(self, event: Event) -> None:
        """Change the state as `event` says. Events of machines (`BackendStarted`, ...) change nothing."""
        if self._strategy.undecided() and not isinstance(event, Dropped):
            self._admit()
        match event:
            case Asked():
                self._tally.asked += 1
                self._outstanding[event.brief] = self._brief(event)
                self._actions[event.brief] = event.action
                if event.parent is not None and event.action == "propose":
                    self._unmeasured[event.brief] = event.parent
                self._strategies_used[event.strategy] += 1
            case TaskProfiled():
                self._bounds = event.bounds
            case Attempted():
                self._attempts.setdefault(event.brief, []).append(event.candidate.id)
                self._proposed[event.candidate.id] = event.candidate
                self._failed_row.clear()
                self._make_ready(event.candidate, 0)
            case Proposed():
                del self._outstanding[event.candidate.id]
                self._proposed[event.candidate.id] = event.candidate
                self._failed_row.clear()
                self._tally.proposals += 1
                self._tally.pay(event.candidate.usage)
            case ProposalFailed():
                del self._outstanding[event.brief]
                self._unmeasured.pop(event.brief, None)
                self._tally.proposals += 1
                self._tally.proposal_failures += 1
                self._tally.pay(event.usage)
                if event.blame != "brief" or not self._proposed:
                    self._failed_row.append(event)
            case Dropped():
                self._unmeasured.pop(event.candidate, None)
                self._tally.dropped += 1
            case RemeasureAsked():
                self._make_ready(self._proposed[event.candidate], event.repeat)
                if event.is_full:
                    self._full_asked.add(event.candidate)
                elif event.is_final:
                    self._finalists.append(event.candidate)
            case Evaluated():
                self._take_result(event)
            case FullForgone():
                self._settle(event.candidate, FULL_REPEAT)
                trial = self._trials[event.candidate]
                self._trials[event.candidate] = replace(trial, why_no_full=event.reason)
            case Summarized():
                self._summaries.append(event)
                self._summary_version = None
                self._tally.pay(event.usage)
            case Rented():
                self._tally.pay_rent(event.rent)
            case Granted():
                self._tally.grant(event)
            case Ended():
                self._ended, self._answer = event.reason, event.answer
            case Raised():
                self._settings = raised(self._settings, event)
                self._take_back_the_end()
        if not (isinstance(event, RemeasureAsked | Evaluated) and event.is_final):
            # Final measurements change no ranking, so a replay finds the same finalists.
            self._strategy.apply(event)
        if isinstance(event, Evaluated) and not (event.is_final or event.cached):
            best = self._strategy.best
            self._course.append(mean_score(self._trials[best]) if best else 0.0)

    def _take_back_the_end(self) -> None:
        """The search is as it was before its end. What is measured there again comes from the cache."""
        self._ended, self._answer = None, ""
        for key in self._finalists:
            self._trials[key] = self._trials[key].without_finals
        self._finalists, self._full_asked = [], set()
        self._pending = {key: one for key, one in self._pending.items() if one.repeat < FINAL_REPEAT}
        self._ready = {key: one for key, one in self._ready.items() if one.repeat < FINAL_REPEAT}

    def _admit(self) -> None:
        for candidate in self._strategy.admit():
            self._make_ready(candidate, 0)

    def _make_ready(self, candidate: Candidate, repeat: int) -> None:
        ready = Ready(candidate=candidate, repeat=repeat)
        self._pending[candidate.id, repeat] = self._ready[candidate.id, repeat] = ready

    def _settle(self, candidate: str, repeat: int) -> None:
        del self._pending[candidate, repeat]
        self._ready.pop((candidate, repeat), None)

    def _take_result(self, event: Evaluated) -> None:
        self._settle(event.candidate, event.repeat)
        self._unmeasured.pop(event.candidate, None)
        candidate = self._proposed[event.candidate]
        known = self._trials.get(event.candidate)
        if known and event.is_full:
            self._trials[event.candidate] = replace(known, full=event.result)
            return
        results = (*known.results, event.result) if known else (event.result,)
        trial = Trial(candidate=candidate, results=results, num_finals=int(event.is_final))
        self._trials[event.candidate] = trial
        if event.is_final:
            return  # outside the budget, and too late for any choice
        self._tally.count_result(
            event.result,
            repeat=event.repeat,
            cached=event.cached,
            memory_version=candidate.memory_version,
        )
        if event.repeat == 0:
            self._tally.attempts += event.candidate not in self._actions
            if mean_score(trial) == 0.0:
                self._failures.append(event.candidate)
            if candidate.parent is not None and event.candidate in self._actions:
                gained = mean_score(trial) > mean_score(self._trials[candidate.parent])
                self._bandit.learn(self._actions[event.candidate], paid_off=gained)

    def _finals_due(self) -> tuple[RemeasureAsked, ...]:
        """The final measurements that are still to be asked for. Once they are told, the full evaluation of
        the winner, and of the next one if the winner fails it.
        """
        chosen = finalists(self.top(NUM_LEADING), self._trials.get(self._answer))
        best = self.best if self._finalists else None
        return finals_due(chosen, self._finalists, best, self._full_asked)

    # Small questions.

    def exhausted(self, elapsed_s: float) -> str | None:
        """Why no further brief may be written, None if one may."""
        limits, total = self._settings.budget, self._settings.num_total_proposals
        if self._tally.asked - self._strategy.num_first_kernels - self._forgiven >= total:
            return f"all {total} proposals were asked for" if total > 1 else "the proposal was asked for"
        if not (limits.grows or self._may_evaluate()):
            return f"the budget of {plural(limits.evaluations or 0, 'evaluation')} is used"
        leading = (trial for trial in self.top(NUM_LEADING) if len(trial.results) > 1)
        ends = (end for trial in leading if (end := reached(trial, self._settings)))
        return next(ends, None) or self._tally.exhausted(limits, elapsed_s=elapsed_s)

    def _hopeless(self) -> str | None:
        """Why the next proposal would fail as the last ones did, None if it may not."""
        failed = len(self._failed_row)
        limit = MAX_FAILED_IN_A_ROW if self._proposed else MAX_FAILED_AT_FIRST
        return f"{failed} proposals failed one after the other" if failed >= limit else None

    def _may_evaluate(self) -> bool:
        """True if the budget has an evaluation left besides those in flight, and dollars where it grows."""
        lacks = self.lacks_evaluations or (self._settings.budget.grows and self._tally.has_spent(self.budget))
        return self._ended is None and not lacks

    def _brief(self, asked: Asked) -> Brief:
        return Brief(
            id=asked.brief,
            task=self._task,
            parent=self._trials[asked.parent] if asked.parent else None,
            exemplars=tuple(self._trials[key] for key in asked.exemplars),
            summary=self._summary(asked.summary_version),
            seed=asked.seed,
            memory_version=asked.memory_version,
            action=asked.action,
            strategy=self._strategies.get(asked.strategy),
            others=() if self._settings.synchronous else self._others(asked.parent),
        )

    def _others(self, parent: str | None) -> tuple[str, ...]:
        briefs = [brief for brief, of in self._unmeasured.items() if of == parent]
        return tuple(self._proposed[one].note if one in self._proposed else "" for one in briefs)

    def _summary(self, version: int | None = None) -> str:
        made = self._summaries[:version]
        return made[-1].text if made else ""
