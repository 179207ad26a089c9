"""Attempts on the way to a brief's answer: what they cost, and what they are to the search and its replay."""

import pytest

from kbopt.core.evaluations import EvalRequest, Result
from kbopt.core.events import Attempted, Dropped, Evaluated
from kbopt.core.proposals import Brief, Candidate, NoProposal
from kbopt.core.protocol import EvalProtocol
from kbopt.core.search import Search
from kbopt.core.settings import Budget, SearchSettings
from kbopt.core.work import Wait
from kbopt.simulated import landscape
from kbopt.simulated.backend import judge
from kbopt.simulated.driver import ListJournal
from kbopt.simulated.kernels import to_source

TASK = landscape("sim/smooth").task


def source(level: int) -> str:
    """The faster the nearer the level is to 12."""
    return to_source((level,) * 8)


def result(text: str) -> Result:
    return judge(EvalRequest(task=TASK, source=text, protocol=EvalProtocol(), repeat=0), service_s=0.0)


class Desk:
    """A search of which one brief after the other is answered with attempts."""

    def __init__(self, *, evaluations: int | None = None, algorithm: str = "PS") -> None:
        self.settings = SearchSettings(
            algorithm=algorithm,  # type: ignore[arg-type]
            num_steps=9,
            num_candidates=1,
            remeasure_share=0.0,
            budget=Budget(evaluations=evaluations),
        )
        self.journal = ListJournal()
        self.search = Search(task=TASK, settings=self.settings, journal=self.journal)

    def ask(self) -> Brief:
        asked = self.search.ask()
        assert isinstance(asked, Brief), asked
        return asked

    def attempt(self, brief: Brief, text: str) -> Candidate | str:
        """One that is evaluated at once, if it is taken."""
        made = self.search.attempt(brief.id, text, proposer="agent:x", note="n")
        self.evaluate(cached=False)
        return made

    def evaluate(self, *, cached: bool) -> None:
        for ready in self.search.take_ready():
            self.search.tell(ready.candidate.id, result(ready.candidate.source), cached=cached)

    def answer(self, brief: Brief, text: str) -> None:
        parent = brief.parent.candidate.id if brief.parent else None
        self.search.propose(
            Candidate(id=brief.id, source=text, parent=parent, proposer="agent:x", memory_version=0)
        )
        self.evaluate(cached=True)


def test_attempts_have_the_briefs_parent_and_may_be_the_best_though_the_brief_fails() -> None:
    desk = Desk()
    first = desk.ask()
    desk.attempt(first, source(3))
    desk.answer(first, source(3))
    second = desk.ask()
    assert second.parent is not None
    made = desk.attempt(second, source(11))
    assert isinstance(made, Candidate)
    assert (made.id, made.parent) == ("c000002-1", second.parent.candidate.id)
    desk.search.fail(second.id, NoProposal(reason="no submission", blame="answer"))
    assert desk.search.best is not None
    assert desk.search.best.candidate == made
    third = desk.ask()
    assert third.parent is not None
    assert third.parent.candidate == made
    assert desk.search.progress.proposals == 2
    assert (desk.search.progress.evaluations, desk.search.progress.attempts) == (2, 2)


def test_an_equal_source_of_one_brief_is_one_attempt() -> None:
    desk = Desk()
    brief = desk.ask()
    assert desk.attempt(brief, source(3)) == desk.attempt(brief, source(3))
    assert sum(isinstance(event, Attempted) for event in desk.journal.events) == 1
    desk.answer(brief, source(3))
    assert desk.attempt(brief, source(4)) == "the brief c000001 has its answer already"


def test_the_evaluation_that_is_kept_for_an_answer_goes_to_the_first_attempt_and_the_budget_holds() -> None:
    desk = Desk(evaluations=3)
    first, second = desk.ask(), desk.ask()
    assert isinstance(desk.attempt(first, source(3)), Candidate)
    assert isinstance(desk.attempt(first, source(4)), Candidate)
    # The third one is the other brief's.
    assert desk.attempt(first, source(5)) == "the search's budget of 3 evaluations is used"
    assert isinstance(desk.attempt(second, source(6)), Candidate)
    assert desk.attempt(second, source(7)) == "the search's budget of 3 evaluations is used"
    assert isinstance(desk.search.ask(), Wait)
    desk.answer(first, source(4))
    desk.answer(second, source(6))
    assert desk.search.progress.evaluations == 3
    assert desk.search.progress.cached == 2


@pytest.mark.parametrize("algorithm", ["PS", "PS_epsNet", "best_of_n", "random"])
def test_attempts_are_never_dropped_and_a_replay_rebuilds_the_search(algorithm: str) -> None:
    desk = Desk(algorithm=algorithm)
    for level in (3, 4, 5):
        brief = desk.ask()
        desk.attempt(brief, source(level))
        desk.attempt(brief, "not a kernel at all")
        desk.answer(brief, source(level))
    open_brief = desk.ask()
    desk.search.attempt(open_brief.id, source(9), proposer="agent:x", note="")
    events = list(desk.journal.events)
    assert not any(isinstance(event, Dropped) and "-" in event.candidate for event in events)
    told = [event.candidate for event in events if isinstance(event, Evaluated)]
    assert {"c000001-1", "c000001-2", "c000002-1", "c000002-2"} <= set(told)
    again = Search(task=TASK, settings=desk.settings, journal=ListJournal())
    again.replay(events)
    assert again.progress == desk.search.progress
    assert again.outstanding() == desk.search.outstanding() == (open_brief,)
    assert again.attempts(brief.id) == desk.search.attempts(brief.id)
    (ready,) = again.take_ready()
    assert ready.candidate.id == f"{open_brief.id}-1"
    assert again.attempt(open_brief.id, source(9), proposer="agent:x", note="") == ready.candidate
