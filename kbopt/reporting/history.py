"""A journal folded into what happened: one node per proposal, the totals, and the time line.

`History.add` takes the entries one by one, so the same fold serves a finished run, one that is being
written, and a hundred thousand candidates in bounded memory.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from kbopt.core.costs import Rent, Usage
from kbopt.core.evaluations import Result
from kbopt.core.events import (
    Asked,
    Attempted,
    BackendStarted,
    CandidateProfiled,
    Dropped,
    Ended,
    Entry,
    Evaluated,
    Event,
    FullForgone,
    InfraFailed,
    Opened,
    ProposalFailed,
    Proposed,
    Raised,
    Rented,
    Summarized,
)
from kbopt.core.failures import error_text
from kbopt.core.finals import final_rank
from kbopt.core.outcomes import Measured, outcome_name
from kbopt.core.proposals import Candidate
from kbopt.core.scoring import mean_score, score_interval
from kbopt.core.task import seed_name
from kbopt.core.text import first_line
from kbopt.reporting.kept_texts import TEXT_LIMIT_CHARS, bounded, let_texts_go, shown_nodes
from kbopt.reporting.records import Bar, Message, ModelSpend, Node, ProgressPoint, RaisedAt, Recommendation
from kbopt.reporting.text import truncated
from kbopt.reporting.tunables import tunable_values

BARS_KEPT = 6_000
MESSAGES_KEPT = 1_000


@dataclass(slots=True)
class _Brief:
    asked: Asked
    minutes: float
    order: int


@dataclass(slots=True)
class History:
    """The fold of a journal. `texts_kept` bounds the candidates whose texts are held in memory."""

    texts_kept: int = 2_000
    nodes: dict[str, Node] = field(default_factory=dict)
    entries: int = 0
    started: float = 0.0
    minutes: float = 0.0
    sessions: int = 0
    ended: str | None = None
    raises: list[RaisedAt] = field(default_factory=list)
    answer: str = ""
    evaluations: int = 0
    cached: int = 0
    repeats: int = 0
    proposals_failed: int = 0
    by_outcome: Counter[str] = field(default_factory=Counter)
    best: Node | None = None
    progress: list[ProgressPoint] = field(default_factory=list)
    spend: dict[str, ModelSpend] = field(default_factory=dict)
    rents: dict[str, Rent] = field(default_factory=dict)
    device_s: float = 0.0
    lease_s: float = 0.0
    stage_s: Counter[str] = field(default_factory=Counter)
    bars: deque[Bar] = field(default_factory=lambda: deque(maxlen=BARS_KEPT))
    num_bars: int = 0
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    error_examples: dict[tuple[str, str], str] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)
    recommendations: list[Recommendation] = field(default_factory=list)
    backends: list[BackendStarted] = field(default_factory=list)
    failures: deque[Message] = field(default_factory=lambda: deque(maxlen=MESSAGES_KEPT))
    num_failures: int = 0
    _wall: float = 0.0
    _told: int = 0
    _asked: int = 0
    _answers: int = 0
    _shift_s: float = 0.0
    _briefs: dict[str, _Brief] = field(default_factory=dict)
    _num_with_texts: int = 0

    @property
    def proposals(self) -> int:
        """Answered briefs, those answered with nothing too."""
        return self._answers + self.proposals_failed

    @property
    def finalists(self) -> list[Node]:
        """What was measured once more after the end."""
        return [node for node in self.nodes.values() if node.num_finals]

    @property
    def usd(self) -> float:
        """Dollars for models and for containers, as far as prices are known."""
        models = sum(spend.usd for spend in self.spend.values())
        return models + sum(rent.usd for rent in self.rents.values())

    @property
    def tokens(self) -> int:
        return sum(spend.prompt_tokens + spend.completion_tokens for spend in self.spend.values())

    @property
    def busy_fraction(self) -> float:
        """The share of the search's time in which the device ran the reference or a candidate."""
        return min(1.0, self.device_s / (self.minutes * 60)) if self.minutes else 0.0

    def add(self, entry: Entry) -> None:
        self._advance(entry)
        self.entries += 1
        self._apply(entry.event)

    def add_all(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self.add(entry)

    def _advance(self, entry: Entry) -> None:
        if self.entries == 0:
            self.started = self._shift_s = self._wall = entry.time
        if isinstance(entry.event, Opened | Raised):
            self._shift_s += entry.time - self._wall
        # A clock that was set back must not make the search's time run backwards.
        self._wall = max(self._wall, entry.time)
        self.minutes = (self._wall - self._shift_s) / 60

    def _apply(self, event: Event) -> None:
        match event:
            case Opened(session=session):
                self.sessions = session
                self.ended = None
            case Asked():
                self._asked += 1
                self._briefs[event.brief] = _Brief(event, self.minutes, self._asked)
            case Attempted(candidate=candidate):
                self._add_node(candidate, self._briefs.get(event.brief))
            case Proposed(candidate=candidate):
                self._propose(candidate)
            case ProposalFailed():
                self.proposals_failed += 1
                self._pay(event.usage)
                self._end_brief(event.brief, "failed")
                self._fail("proposal", event.reason)
            case CandidateProfiled(candidate=candidate_id, outcome=outcome):
                node = self.nodes[candidate_id]
                node.profiles, node.changed = (*node.profiles, outcome), self.entries
            case Dropped():
                self.dropped.append(event)
                node = self.nodes[event.candidate]
                node.dropped, node.changed = event, self.entries
            case Evaluated(is_full=True):
                self._take_full(event)
            case Evaluated():
                self._evaluate(event)
            case FullForgone():
                node = self.nodes[event.candidate]
                node.why_no_full, node.changed = first_line(event.reason, 500), self.entries
            case Summarized():
                self._pay(event.usage)
                self.recommendations.append(
                    Recommendation(
                        minutes=self.minutes,
                        memory_version=event.memory_version,
                        text=truncated(event.text, TEXT_LIMIT_CHARS),
                    )
                )
            case BackendStarted():
                self.backends.append(event)
            case Rented(rent=rent):
                before = self.rents.get(rent.gpu, Rent(gpu=rent.gpu, seconds=0.0, usd=0.0))
                self.rents[rent.gpu] = before.plus(rent)
            case InfraFailed():
                self._fail(f"{event.what}, attempt {event.attempt}", event.reason)
            case Ended():
                self.ended, self.answer = event.reason, event.answer
            case Raised():
                self.raises.append(RaisedAt(time=self._wall, minutes=self.minutes, limits=event))
                self._take_back_the_end()

    def _take_back_the_end(self) -> None:
        """The search goes on from what it knew before its final measurements."""
        self.ended, self.answer = None, ""
        for node in self.finalists:
            node.results = node.trial.without_finals.results
            node.num_finals, node.full, node.why_no_full, node.changed = 0, None, "", self.entries
            self._score(node)
        self.best = max(
            (node for node in self.nodes.values() if node.speedup is not None), key=_rank_key, default=None
        )

    def _propose(self, candidate: Candidate) -> None:
        self._pay(candidate.usage)
        self._answers += 1
        self._add_node(candidate, self._end_brief(candidate.id, "propose"))

    def _add_node(self, candidate: Candidate, brief: _Brief | None) -> None:
        self.nodes[candidate.id] = Node(
            candidate=candidate,
            index=len(self.nodes),
            order=brief.order if brief else len(self.nodes),
            minutes=self.minutes,
            action=brief.asked.action if brief else "propose",
            strategy=brief.asked.strategy if brief and _reads(candidate) else "",
            exemplars=brief.asked.exemplars if brief else (),
            tunables=tunable_values(candidate.source),
            seed=seed_name(candidate.source),
            source_key=hash(candidate.source),
            changed=self.entries,
        )
        self._num_with_texts += 1
        if self._num_with_texts > 3 * self.texts_kept:
            let_texts_go(self.nodes, self.best, self.texts_kept)
            self._num_with_texts = sum(node.has_texts for node in self.nodes.values())

    def _end_brief(self, brief_id: str, stage: str) -> _Brief | None:
        brief = self._briefs.pop(brief_id, None)
        if brief:
            self._bar("explorer", stage, brief_id, brief.minutes, self.minutes)
        return brief

    def _take_full(self, event: Evaluated) -> None:
        node = self.nodes[event.candidate]
        node.full = bounded(event.result)
        node.changed = self.entries
        if not event.cached:
            self._count(event, node.full)
        self._rank(node)

    def _evaluate(self, event: Evaluated) -> None:
        node = self.nodes[event.candidate]
        result = bounded(event.result)
        node.results = (*node.results, result)
        node.num_finals += event.is_final
        self._score(node)
        if node.staleness is None:
            node.staleness = self._told - node.candidate.memory_version
        self._told += not event.is_final
        node.changed = self.entries
        if event.cached:
            self.cached += not event.is_final
        else:
            self._count(event, result)
        if event.repeat == 0:
            self._count_outcome(event)
        node.evaluations = self.evaluations
        self._rank(node)

    def _score(self, node: Node) -> None:
        if any(isinstance(one.outcome, Measured) for one in node.results):
            node.speedup, node.ci = mean_score(node.trial), score_interval(node.trial)

    def _count(self, event: Evaluated, result: Result) -> None:
        if not event.is_final:  # those are outside the budget
            self.evaluations += 1
            self.repeats += event.repeat > 0
        self.device_s += result.device_s
        for stage in ("queue", "compile", "check", "time"):
            self.stage_s[stage] += getattr(result.seconds, stage)
        for span in result.spans:
            start = (span.start - self._shift_s) / 60
            if span.stage == "compile":
                self._bar("compile", "compile", event.candidate, start, start + span.seconds / 60)
            elif span.stage != "queue":
                self.lease_s += span.seconds
                self._bar("device lease", span.stage, event.candidate, start, start + span.seconds / 60)

    def _count_outcome(self, event: Evaluated) -> None:
        outcome = event.result.outcome
        self.by_outcome[outcome_name(outcome)] += 1
        if not isinstance(outcome, Measured):
            key = (outcome_name(outcome), error_text(outcome))
            self.errors[key] += 1
            self.error_examples.setdefault(key, event.candidate)

    def _rank(self, node: Node) -> None:
        if node.speedup is None:
            return
        finals = self.finalists if node.num_finals else []
        if finals:  # they alone name the winner
            self.best = max(finals, key=lambda one: (*final_rank(one.trial, self.answer), one.order))
        elif node is self.best:  # measured again: another one may be ahead now
            self.best = max(self.nodes.values(), key=_rank_key)
        elif self.best is None or _rank_key(node) > _rank_key(self.best):
            self.best = node
        best = self.best
        if best.speedup is None or best.ci is None:
            raise AssertionError("a node that was measured has a speedup")
        last = self.progress[-1] if self.progress else None
        if last and (last.candidate, last.speedup) == (best.candidate.id, best.speedup):
            return
        self.progress.append(
            ProgressPoint(
                evaluations=self.evaluations,
                minutes=self.minutes,
                usd=self.usd,
                speedup=best.speedup,
                ci=best.ci,
                candidate=best.candidate.id,
            )
        )

    def _pay(self, usages: Iterable[Usage]) -> None:
        for usage in usages:
            spend = self.spend.get(usage.model) or ModelSpend(model=usage.model)
            self.spend[usage.model] = spend.plus(usage)

    def _fail(self, what: str, reason: str) -> None:
        self.num_failures += 1
        reason = truncated(reason, TEXT_LIMIT_CHARS)
        self.failures.append(Message(minutes=self.minutes, what=what, reason=reason))

    def _bar(self, group: str, stage: str, candidate: str, start: float, end: float) -> None:
        self.num_bars += 1
        self.bars.append(Bar(group=group, stage=stage, candidate=candidate, start=start, end=end))

    def shown(self, limit: int) -> list[Node]:
        """The nodes a page shows, as `shown_nodes` chooses them."""
        return shown_nodes(self.nodes, self.best, limit)


def _reads(candidate: Candidate) -> bool:
    """Whether a model or an agent wrote it, who reads what a brief asks for."""
    return candidate.proposer.startswith(("llm:", "agent:"))


def _rank_key(node: Node) -> tuple[float, int]:
    """Rank as the search does before its end: the highest mean score, the newest brief of equals."""
    return node.speedup or 0.0, node.order


def fold(entries: Iterable[Entry], texts_kept: int = 2_000) -> History:
    """The `History` of all of `entries`."""
    history = History(texts_kept=texts_kept)
    history.add_all(entries)
    return history
