"""Which search of a sweep gets the next evaluations."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbopt.core.events import Granted
from kbopt.core.proposals import Brief
from kbopt.core.search import Search
from kbopt.core.settings import Budget, SearchSettings
from kbopt.core.spending import PORTION, Account, expected_gain, first_part, is_used, next_portion
from kbopt.core.work import Done, Wait
from kbopt.simulated import LANDSCAPES, ListJournal, SimulatedProposer
from kbopt.sweep import SweepConfig
from tests.simulation.test_requirements import measure

LN2 = math.log(2)


def waiting(committed: int, worth: float) -> Account:
    return Account(state="waiting", committed=committed, worth=worth)


GOING = Account(state="going", committed=20)


def test_the_one_of_which_most_is_expected_gets_the_next_portion() -> None:
    accounts = [waiting(20, 0.1), waiting(20, 0.3), waiting(20, 0.2), GOING]
    assert next_portion(accounts, total=160) == (1, PORTION)
    assert next_portion(accounts, total=83) == (1, 3)
    assert next_portion(accounts, total=80) is None


def test_half_of_the_searches_have_some_left_at_most() -> None:
    assert next_portion([waiting(20, 0.1), waiting(20, 0.2), GOING, GOING], total=160) is None
    assert next_portion([waiting(20, 0.1)], total=40) == (0, PORTION)


def test_what_a_search_left_that_is_over_goes_to_the_others() -> None:
    over = Account(state="over", committed=7)
    assert next_portion([waiting(20, 0.1), over], total=30) == (0, 3)
    assert not is_used([waiting(20, 0.1), over], total=30)
    assert is_used([waiting(23, 0.1), over], total=30)
    assert not is_used([waiting(23, 0.1), Account(state="going", committed=7)], total=30)


@settings(max_examples=50)
@given(
    worths=st.lists(st.floats(0, 10), min_size=1, max_size=12),
    each=st.integers(1, 40),
    ends=st.randoms(use_true_random=False),
)
def test_all_that_is_shared_is_given_out_and_no_more(worths: list[float], each: int, ends) -> None:
    total = each * len(worths)
    accounts = [waiting(first_part(each), worth) for worth in worths]
    while not is_used(accounts, total):
        portion = next_portion(accounts, total)
        if portion is None:
            going = [index for index, account in enumerate(accounts) if account.state == "going"]
            index = ends.choice(going)
            accounts[index] = replace(accounts[index], state="waiting")
            continue
        index, evaluations = portion
        assert accounts[index].state == "waiting"
        accounts[index] = Account(
            state="going", committed=accounts[index].committed + evaluations, worth=accounts[index].worth
        )
    assert sum(account.committed for account in accounts) == max(total, first_part(each) * len(worths))


def test_a_gain_is_half_the_recent_rise_and_half_the_headroom() -> None:
    flat = [1.0] * 40
    assert expected_gain(flat, share=0.9) == pytest.approx(0.5 * -math.log(0.9) / 40)
    assert expected_gain(flat, share=0.01) == pytest.approx(0.5 * LN2 / 40)
    assert expected_gain(flat, share=0.0) == pytest.approx(0.5 * LN2 / 40)
    assert expected_gain(flat, share=1.0) == 0.0
    rising = [1.0] * 30 + [2.0] * 10
    assert expected_gain(rising, share=1.0) == pytest.approx(0.5 * LN2 / 20)
    assert expected_gain(rising + [2.0] * 20, share=1.0) == 0.0


def test_a_search_without_a_kernel_or_a_measurement_has_a_gain_too() -> None:
    assert expected_gain([], share=0.0) == math.inf
    assert expected_gain([0.0] * 10, share=0.0) == pytest.approx(0.5 * LN2 / 10)
    assert expected_gain([0.0] * 5 + [1.0, 2.0], share=1.0) == pytest.approx(0.5 * LN2 / 7)


def growing(journal: ListJournal) -> Search:
    how = SearchSettings(num_steps=40, num_candidates=3, budget=Budget(evaluations=5, grows=True), seed=1)
    return Search(task=LANDSCAPES["sim/smooth"].task, settings=how, journal=journal)


def advance(search: Search) -> Wait | Done:
    while isinstance(asked := search.ask(), Brief):
        search.propose(SimulatedProposer().answer(asked))  # type: ignore[arg-type]
        measure(search)
    return asked


def test_a_search_uses_what_it_was_granted_then_waits_and_never_more() -> None:
    journal = ListJournal()
    search = growing(journal)
    assert not search.wants_more
    assert advance(search) == Wait(reason="its part of the sweep's budget is used")
    assert (search.progress.evaluations, search.wants_more, search.ended) == (5, True, None)
    search.grant(3)
    assert not search.wants_more
    advance(search)
    assert search.progress.evaluations == search.max_evaluations == 8
    again = growing(ListJournal())
    again.replay(journal.events)
    assert (again.wants_more, again.max_evaluations, again.worth) == (True, 8, search.worth)
    search.end("the sweep's 8 evaluations are used")
    measure(search)
    assert not search.wants_more
    assert [event for event in journal.events if isinstance(event, Granted)] == [Granted(evaluations=3)]


def test_a_budget_that_does_not_grow_ends_as_before() -> None:
    how = SearchSettings(budget=Budget(evaluations=5))
    search = Search(task=LANDSCAPES["sim/smooth"].task, settings=how, journal=ListJournal())
    assert advance(search).reason == "the budget of 5 evaluations is used"
    with pytest.raises(ValueError, match="does not grow"):
        search.grant(1)


def test_a_sweep_shares_what_its_searches_would_have_had() -> None:
    tasks = tuple(landscape.task for landscape in LANDSCAPES.values())
    config = SweepConfig(
        name="s",
        tasks=tasks,
        algorithms=("PS",),
        seeds=(0, 1),
        settings=SearchSettings(budget=Budget(evaluations=25)),
    )
    assert config.shared_evaluations is None
    assert {run.settings.budget for run in config.runs()} == {Budget(evaluations=25)}
    config = replace(config, spend="headroom")
    assert config.shared_evaluations == 200
    assert {run.settings.budget for run in config.runs()} == {Budget(evaluations=13, grows=True)}
