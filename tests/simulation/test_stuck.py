"""A search whose proposals fail one after the other stops, and goes on once the cause is mended."""

from __future__ import annotations

from kbopt.core.proposals import Blame, Brief, NoProposal
from kbopt.core.search import Search
from kbopt.core.search_state import MAX_FAILED_AT_FIRST, MAX_FAILED_IN_A_ROW
from kbopt.core.settings import Budget, SearchSettings
from kbopt.core.work import Done, Stuck, Wait
from kbopt.simulated import LANDSCAPES, ListJournal, SimulatedProposer

PROPOSER = SimulatedProposer()


def new_search(journal: ListJournal, **settings: object) -> Search:
    given = SearchSettings(**{"num_steps": 20, "num_candidates": 5, **settings})  # type: ignore[arg-type]
    search = Search(task=LANDSCAPES["sim/smooth"].task, settings=given, journal=journal)
    search.replay(tuple(journal.events))
    return search


def fail(search: Search, blame: Blame = "answer") -> None:
    brief = search.ask()
    assert isinstance(brief, Brief)
    search.fail(brief.id, NoProposal(reason="there is no fenced block.", blame=blame))


def succeed(search: Search) -> None:
    brief = search.ask()
    assert isinstance(brief, Brief)
    search.propose(PROPOSER.answer(brief))


def count_until_stuck(search: Search, blame: Blame = "answer") -> tuple[int, Stuck]:
    for number in range(1000):
        asked = search.ask()
        if isinstance(asked, Stuck):
            return number, asked
        assert isinstance(asked, Brief)
        search.fail(asked.id, NoProposal(reason="no fenced block.", blame=blame))
    raise AssertionError("it never stops")


def test_a_search_without_a_first_kernel_stops_with_the_last_reason() -> None:
    journal = ListJournal()
    number, stuck = count_until_stuck(new_search(journal))
    assert number == MAX_FAILED_AT_FIRST
    assert "no kernel came of the last 8 proposals" in stuck.reason
    assert "because: no fenced block. Mend that and go on with kbopt resume." in stuck.reason
    assert not stuck.is_service
    assert count_until_stuck(new_search(ListJournal()), "service")[1].is_service
    assert count_until_stuck(new_search(ListJournal()), "brief")[0] == MAX_FAILED_AT_FIRST


def test_what_is_under_way_may_still_succeed() -> None:
    search = new_search(ListJournal())
    late = search.ask()
    assert isinstance(late, Brief)
    for _ in range(MAX_FAILED_AT_FIRST):
        fail(search)
    assert isinstance(search.ask(), Wait)
    search.propose(PROPOSER.answer(late))
    assert isinstance(search.ask(), Brief)


def test_failed_proposals_are_asked_for_again_after_a_resume() -> None:
    journal = ListJournal()
    settings = {"num_steps": 6, "num_candidates": 1}
    number, stuck = count_until_stuck(new_search(journal, **settings))
    assert number == 6
    assert "all 6 proposals were asked for" in stuck.reason
    resumed = new_search(journal, **settings)
    assert resumed.ended is None
    for _ in range(6):
        succeed(resumed)


def test_a_budget_that_is_used_up_by_failures_ends_the_search_with_their_reason() -> None:
    search = new_search(ListJournal(), budget=Budget(minutes=1.0))
    fail(search)
    asked = search.ask(elapsed_s=61.0)
    assert isinstance(asked, Stuck)
    assert "ran for 1.0 of 1 minutes" in asked.reason


def test_a_model_that_breaks_later_stops_the_search_and_uses_nothing_up() -> None:
    journal = ListJournal()
    settings = {"num_steps": 20, "num_candidates": 1}
    search = new_search(journal, **settings)
    succeed(search)
    for _ in range(MAX_FAILED_IN_A_ROW):
        fail(search)
    assert isinstance(search.ask(), Wait)  # for the kernel that is being measured
    assert search.ended is None
    resumed = new_search(journal, **settings)
    for _ in range(19):
        succeed(resumed)


def test_a_space_that_is_exhausted_is_no_fault() -> None:
    search = new_search(ListJournal(), num_steps=40, num_candidates=1)
    succeed(search)
    for _ in range(39):
        fail(search, "brief")
    assert not isinstance(search.ask(), Brief | Stuck | Done)
