"""Which search of a sweep gets the next evaluations."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbopt.core.costs import Rent
from kbopt.core.events import Granted
from kbopt.core.proposals import Brief, NoProposal
from kbopt.core.search import Search
from kbopt.core.settings import Budget, SearchSettings
from kbopt.core.spending import (
    PORTION,
    Account,
    Portion,
    Shared,
    expected_gain,
    first_part,
    in_vain,
    next_portion,
    outbid,
    steady_gain,
)
from kbopt.core.work import Done, Wait
from kbopt.simulated import LANDSCAPES, ListJournal, SimulatedProposer
from kbopt.sweep import SweepConfig
from tests.simulation.test_requirements import measure

LN2 = math.log(2)


def waiting(evaluations: int, gain: float) -> Account:
    return Account(state="waiting", evaluations=evaluations, gain=gain)


def paying(usd: float, gain: float, usd_each: float = 0.1) -> Account:
    return Account(
        state="waiting",
        evaluations=20,
        usd=usd,
        usd_each=usd_each,
        lacks_evaluations=False,
        lacks_usd=True,
        gain=gain,
    )


GOING = Account(state="going", evaluations=20)


def of(evaluations: int) -> Shared:
    return Shared(evaluations=evaluations)


def test_the_one_of_which_most_is_expected_gets_the_next_portion() -> None:
    accounts = [waiting(20, 0.1), waiting(20, 0.3), waiting(20, 0.2), GOING]
    assert next_portion(accounts, of(160)) == Portion(index=1, evaluations=PORTION)
    assert next_portion(accounts, of(83)) == Portion(index=1, evaluations=3)
    assert next_portion(accounts, of(80)) is None


def test_dollars_go_to_the_one_that_gains_most_by_the_dollar() -> None:
    accounts = [paying(2.0, 0.2, usd_each=0.1), paying(2.0, 0.3, usd_each=0.3)]
    assert next_portion(accounts, Shared(usd=8.0)) == Portion(index=0, usd=1.0)
    assert next_portion(accounts, Shared(usd=4.25)) == Portion(index=0, usd=0.25)
    assert next_portion(accounts, Shared(usd=4.0)) is None
    # One that costs nothing has no gain by the dollar: then all are compared by the evaluation.
    accounts = [*accounts, waiting(20, 0.25)]
    assert next_portion(accounts, Shared(evaluations=90, usd=8.0)) == Portion(index=1, usd=3.0)


def test_a_search_gets_what_it_lacks_and_none_is_kept_for_what_another_lacks() -> None:
    accounts = [
        replace(paying(2.0, 0.3), lacks_evaluations=True),
        waiting(20, 0.2),
        GOING,
        GOING,
        GOING,
        GOING,
    ]
    assert next_portion([*accounts[:4], GOING], Shared(evaluations=200, usd=8.0)) is None
    accounts = [*accounts[:3], *[replace(GOING, state="over")] * 3]
    assert next_portion(accounts, Shared(evaluations=200, usd=8.0)) == Portion(
        index=0, evaluations=10, usd=1.0
    )
    assert next_portion(accounts, Shared(evaluations=200, usd=2.0)) == Portion(index=1, evaluations=10)


def test_half_of_the_searches_have_some_left_at_most() -> None:
    assert next_portion([waiting(20, 0.1), waiting(20, 0.2), GOING, GOING], of(160)) is None
    assert next_portion([waiting(20, 0.1)], of(40)) == Portion(index=0, evaluations=PORTION)


def test_what_a_search_left_that_is_over_goes_to_the_others() -> None:
    over = Account(state="over", evaluations=7)
    assert next_portion([waiting(20, 0.1), over], of(30)) == Portion(index=0, evaluations=3)
    assert in_vain([waiting(20, 0.1), over], of(30)) == []
    assert in_vain([waiting(23, 0.1), over], of(30)) == [0]
    assert in_vain([waiting(23, 0.1), Account(state="going", evaluations=7)], of(30)) == []


def test_a_search_is_over_when_the_others_will_use_all_before_they_gain_as_little() -> None:
    """At a gain of 0.003 the other one has ln(2) / 2 / 0.003 = 115.5 evaluations: 95.5 more than now."""
    other = Account(state="going", evaluations=20, gain=0.5 * LN2 / 20, steady=0.5 * LN2)
    accounts = [waiting(20, 0.003), other]
    assert outbid(accounts, of(40 + 95)) == [0]
    assert outbid(accounts, of(40 + 96)) == []
    assert outbid([waiting(20, 0.0), other], of(10_000)) == [0]
    assert outbid([waiting(20, 0.003), replace(other, state="over")], of(41)) == []
    assert outbid([waiting(20, 0.003), replace(other, steady=0.0)], of(41)) == []


def test_a_search_is_over_when_the_others_gain_more_by_the_dollar() -> None:
    """At the same price the other gains more for 95.5 evaluations; at ten times the price for none."""
    other = replace(paying(2.0, 0.5 * LN2 / 20), steady=0.5 * LN2)
    assert outbid([paying(2.0, 0.003), other], Shared(usd=4.0 + 9.5)) == [0]
    assert outbid([paying(2.0, 0.003), other], Shared(usd=4.0 + 9.6)) == []
    dear = replace(other, usd_each=1.0)
    assert outbid([paying(2.0, 0.003), dear], Shared(usd=4.0 + 9.5)) == []


@settings(max_examples=200)
@given(
    had=st.lists(st.tuples(st.integers(1, 60), st.floats(0.01, 0.5 * LN2)), min_size=1, max_size=6),
    more=st.integers(1, 200),
)
def test_one_that_is_outbid_would_get_nothing_and_the_first_in_line_never_is(
    had: list[tuple[int, float]], more: int
) -> None:
    """Beside a search that gives out what is left one by one, where nothing rises any more."""
    accounts = [replace(waiting(num, steady / num), steady=steady) for num, steady in had]
    over = outbid(accounts, of(sum(num for num, _ in had) + more))
    now = [num for num, _ in had]
    for _ in range(more):
        gains = [steady / num for num, (_, steady) in zip(now, had, strict=True)]
        now[gains.index(max(gains))] += 1
    assert {index for index in over if now[index] > had[index][0]} == set()
    gains = [account.gain for account in accounts]
    assert gains.index(max(gains)) not in over


@settings(max_examples=50)
@given(
    worths=st.lists(st.floats(0, 10), min_size=1, max_size=12),
    each=st.integers(1, 40),
    ends=st.randoms(use_true_random=False),
)
def test_all_that_is_shared_is_given_out_and_no_more(worths: list[float], each: int, ends) -> None:
    total = each * len(worths)
    accounts = [waiting(first_part(each), worth) for worth in worths]
    while not in_vain(accounts, of(total)):
        portion = next_portion(accounts, of(total))
        if portion is None:
            going = [index for index, account in enumerate(accounts) if account.state == "going"]
            index = ends.choice(going)
            accounts[index] = replace(accounts[index], state="waiting")
            continue
        account = accounts[portion.index]
        assert account.state == "waiting"
        accounts[portion.index] = replace(
            account, state="going", evaluations=account.evaluations + portion.evaluations
        )
    assert sum(account.evaluations for account in accounts) == max(total, first_part(each) * len(worths))


def test_a_gain_is_half_the_recent_rise_and_half_the_headroom() -> None:
    flat = [1.0] * 40
    assert expected_gain(flat, share=0.9) == pytest.approx(0.5 * -math.log(0.9) / 40)
    assert expected_gain(flat, share=0.01) == pytest.approx(0.5 * LN2 / 40)
    assert expected_gain(flat, share=0.0) == pytest.approx(0.5 * LN2 / 40)
    assert expected_gain(flat, share=1.0) == 0.0
    rising = [1.0] * 30 + [2.0] * 10
    assert expected_gain(rising, share=1.0) == pytest.approx(0.5 * LN2 / 20)
    assert expected_gain(rising + [2.0] * 20, share=1.0) == 0.0
    assert steady_gain(share=0.9) == pytest.approx(0.5 * -math.log(0.9))
    assert expected_gain(flat, share=0.9) == steady_gain(share=0.9) / 40


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


def advance_by(search: Search, proposals: int) -> None:
    for _ in range(proposals):
        search.propose(SimulatedProposer().answer(search.ask()))  # type: ignore[arg-type]
        measure(search)


def test_a_search_uses_what_it_was_granted_then_waits_and_never_more() -> None:
    journal = ListJournal()
    search = growing(journal)
    assert not search.wants_more
    assert advance(search) == Wait(reason="its part of the sweep's budget is used")
    assert (search.progress.evaluations, search.wants_more, search.ended) == (5, True, None)
    search.grant(evaluations=3)
    assert not search.wants_more
    advance(search)
    assert search.progress.evaluations == search.budget.evaluations == 8
    again = growing(ListJournal())
    again.replay(journal.events)
    assert (again.wants_more, again.budget.evaluations, again.gains) == (True, 8, search.gains)
    search.end("the sweep's 8 evaluations are used")
    measure(search)
    assert not search.wants_more
    assert [event for event in journal.events if isinstance(event, Granted)] == [Granted(evaluations=3)]


def test_a_search_spends_what_it_was_granted_then_waits_for_more_dollars() -> None:
    how = SearchSettings(num_steps=40, num_candidates=3, budget=Budget(usd=1.0, grows=True), seed=1)
    journal = ListJournal()
    search = Search(task=LANDSCAPES["sim/smooth"].task, settings=how, journal=journal)
    search.pay_rent(Rent(gpu="L40S", seconds=100.0, usd=0.9))
    advance_by(search, 3)
    assert search.wants_more is False
    assert isinstance(search.ask(), Brief)
    search.pay_rent(Rent(gpu="L40S", seconds=12.0, usd=0.1))
    assert search.ask() == Wait(reason="its part of the sweep's budget is used")
    assert (search.wants_more, search.lacks_evaluations) == (False, False)
    brief = search.outstanding()[0]
    search.attempt(brief.id, "class ModelNew: first = 1", proposer="agent", note="")
    refused = search.attempt(brief.id, "class ModelNew: second = 2", proposer="agent", note="")
    assert refused == "the search's part of the sweep's dollars, 1.00, is spent"
    search.fail(brief.id, NoProposal(reason="nothing better"))
    measure(search)
    assert search.wants_more
    search.grant(usd=0.5)
    assert (search.wants_more, search.budget.usd) == (False, 1.5)
    again = Search(task=LANDSCAPES["sim/smooth"].task, settings=how, journal=ListJournal())
    again.replay(journal.events)
    assert (again.wants_more, again.budget.usd) == (False, 1.5)
    assert isinstance(search.ask(), Brief)


def test_a_budget_that_does_not_grow_ends_as_before() -> None:
    how = SearchSettings(budget=Budget(evaluations=5))
    search = Search(task=LANDSCAPES["sim/smooth"].task, settings=how, journal=ListJournal())
    assert advance(search).reason == "the budget of 5 evaluations is used"
    with pytest.raises(ValueError, match="does not grow"):
        search.grant(evaluations=1)


def test_a_sweep_shares_what_its_searches_would_have_had() -> None:
    tasks = tuple(landscape.task for landscape in LANDSCAPES.values())
    config = SweepConfig(
        name="s",
        tasks=tasks,
        algorithms=("PS",),
        seeds=(0, 1),
        settings=SearchSettings(budget=Budget(evaluations=25)),
    )
    assert config.shared is None
    assert {run.settings.budget for run in config.runs()} == {Budget(evaluations=25)}
    config = replace(config, spend="headroom")
    assert config.shared == Shared(evaluations=200)
    assert {run.settings.budget for run in config.runs()} == {Budget(evaluations=13, grows=True)}
    config = replace(config, settings=SearchSettings(budget=Budget(usd=0.5, tokens=100)))
    assert config.shared == Shared(usd=4.0)
    budget = Budget(usd=0.25, tokens=100, grows=True)
    assert {run.settings.budget for run in config.runs()} == {budget}
