"""Limits that are raised after the end: the search goes on as if it had had them from the start."""

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kbopt.core.errors import UserError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.events import (
    Asked,
    Ended,
    Entry,
    Evaluated,
    Event,
    Opened,
    Raised,
    RemeasureAsked,
    active_s,
    has_ended,
)
from kbopt.core.proposals import Brief, NoProposal
from kbopt.core.protocol import EvalProtocol
from kbopt.core.raising import changes, check_raise, in_force, raised, with_steps
from kbopt.core.scoring import mean_score, score_interval
from kbopt.core.search import Search
from kbopt.core.settings import Budget, SearchSettings
from kbopt.core.work import Done
from kbopt.reporting.history import fold
from kbopt.simulated import LANDSCAPES, Landscape, ListJournal, SimulatedProposer
from kbopt.simulated.backend import judge
from tests.simulation.test_properties import ASYNCHRONOUS, LANDSCAPE, LIGHT, SYNCHRONOUS, view
from tests.simulation.world import USAGE

PROPOSER = SimulatedProposer(failure_rate=0.1, usd=0.01, tokens=100)
SMOOTH = LANDSCAPES["sim/smooth"]


def opened(settings: SearchSettings, landscape: Landscape, events: list[Event]) -> tuple[Search, ListJournal]:
    """The search that `events` come to, and a journal that has them and takes more."""
    journal = ListJournal()
    journal.events.extend(events)
    search = Search(task=landscape.task, settings=settings, journal=journal)
    search.replay(events)
    return search, journal


def go_on(search: Search, landscape: Landscape, *, elapsed_s: float = 0.0) -> str:
    """One explorer and one device, in turn, to the search's end; why it ended."""
    for _ in range(3_000):
        while ready := search.take_ready():
            for one in ready:
                request = EvalRequest(
                    task=landscape.task,
                    source=one.candidate.source,
                    protocol=EvalProtocol(),
                    repeat=one.repeat,
                )
                search.tell(one.candidate.id, judge(request), repeat=one.repeat)
        if (summary := search.summary_due()) is not None:
            search.summarized(f"{len(summary.trials)} trials", (USAGE,))
        asked = next(iter(search.outstanding()), None) or search.ask(elapsed_s=elapsed_s)
        if isinstance(asked, Done):
            return asked.reason
        if isinstance(asked, Brief):
            answer = PROPOSER.answer(asked)
            if isinstance(answer, NoProposal):
                search.fail(asked.id, answer)
            else:
                search.propose(answer)
    raise AssertionError(f"no end: {search.progress}")


def whole(settings: SearchSettings, landscape: Landscape, *raises: Raised) -> list[Event]:
    """The journal of a search whose limits are raised each time that it has ended."""
    events: list[Event] = []
    for more in (None, *raises):
        search, journal = opened(settings, landscape, [*events, *([more] if more else [])])
        go_on(search, landscape)
        events = journal.events
    return events


def course(events: list[Event]) -> list[Event]:
    """What was asked and told before the end."""
    return [
        event
        for event in events
        if not isinstance(event, Ended | Raised)
        and not (isinstance(event, RemeasureAsked | Evaluated) and event.is_final)
    ]


@LIGHT
@given(ASYNCHRONOUS, LANDSCAPE, st.integers(1, 12), st.integers(1, 12))
def test_raised_evaluations_give_the_search_that_had_them_from_the_start(options, landscape, few, more):
    options = replace(options, num_steps=40)
    small = replace(options, budget=Budget(evaluations=few))
    large = replace(options, budget=Budget(evaluations=few + more))
    prolonged = whole(small, landscape, Raised(evaluations=few + more))
    assert course(prolonged) == course(whole(large, landscape))
    assert (
        opened(small, landscape, prolonged)[0].best
        == opened(large, landscape, whole(large, landscape))[0].best
    )


@LIGHT
@given(ASYNCHRONOUS | SYNCHRONOUS, LANDSCAPE, st.integers(1, 3))
def test_raised_steps_give_the_search_that_had_them_from_the_start(options, landscape, more):
    steps = options.num_steps + more
    assume(has_ended(whole(options, landscape)))  # One whose proposals all failed asks for them again.
    prolonged = whole(options, landscape, Raised(num_steps=steps))
    assert course(prolonged) == course(whole(replace(options, num_steps=steps), landscape))


@LIGHT
@given(ASYNCHRONOUS | SYNCHRONOUS, LANDSCAPE, st.integers(1, 15), st.integers(1, 15), st.integers(0, 10_000))
def test_wherever_a_limit_is_raised_replay_equals_live_and_the_limit_holds(
    options, landscape, few, more, seed
):
    options = replace(options, num_steps=40, budget=Budget(evaluations=few))
    events = whole(options, landscape)
    cut = random.Random(seed).randint(0, len(events))  # among its final measurements, say
    wanted = Raised(evaluations=few + more)
    live, journal = opened(options, landscape, [*events[:cut], wanted])
    assert live.ended is None
    go_on(live, landscape)
    assert few <= live.progress.evaluations <= few + more
    assert view(opened(options, landscape, journal.events)[0]) == view(live)


@pytest.mark.parametrize("few", range(1, 25))
def test_a_step_in_whose_middle_the_budget_ended_costs_the_search_no_step(few: int) -> None:
    settings = SearchSettings(num_steps=3, num_candidates=2, num_proposals=2, synchronous=True)
    limited = replace(settings, budget=Budget(evaluations=few))
    events = whole(limited, SMOOTH, Raised(evaluations=1000))
    asked = [event for event in events if isinstance(event, Asked)]
    firsts = sum(event.parent is None for event in asked)
    assert firsts == sum(
        event.parent is None for event in whole(settings, SMOOTH) if isinstance(event, Asked)
    )
    assert len(asked) == firsts + 12
    assert opened(limited, SMOOTH, events)[0].ended == "all 12 proposals were asked for"


@pytest.mark.parametrize("synchronous", [False, True])
def test_a_raise_takes_back_the_end_and_its_measurements_and_nothing_else(synchronous: bool) -> None:
    noisy = Landscape(shape="smooth", noise=0.2)
    settings = SearchSettings(num_steps=3, synchronous=synchronous)
    events = whole(settings, noisy)
    end = next(n for n, event in enumerate(events) if isinstance(event, Ended))
    before, after = opened(settings, noisy, events[:end])[0], opened(settings, noisy, events)[0]
    assert after.best is not None
    assert after.best.num_finals == 1
    back = opened(settings, noisy, [*events, Raised(num_steps=5)])[0]
    assert view(back) == view(before)
    assert back.max_proposals == 25

    events = whole(settings, noisy, Raised(num_steps=5))
    best = opened(settings, noisy, events)[0].best
    shown = fold(Entry(number=n, time=n, event=event) for n, event in enumerate(events, 1))
    assert best is not None
    assert shown.best is not None
    assert shown.best.trial == best
    assert (shown.best.speedup, shown.best.ci) == (mean_score(best), score_interval(best))
    assert [(one.minutes, one.limits) for one in shown.raises] == [
        (shown.raises[0].minutes, Raised(num_steps=5))
    ]


def test_the_history_of_a_raised_search_counts_what_the_search_counts() -> None:
    settings = SearchSettings(num_steps=60, budget=Budget(evaluations=9), remeasure_share=0.3)
    events = whole(settings, SMOOTH, Raised(evaluations=12), Raised(evaluations=20))
    search = opened(settings, SMOOTH, events)[0]
    shown = fold(Entry(number=n, time=n, event=event) for n, event in enumerate(events, 1))
    assert shown.ended == search.ended == "the budget of 20 evaluations is used"
    assert (shown.evaluations, shown.cached) == (20, 0)
    staleness = [node.staleness for node in shown.nodes.values() if node.staleness is not None]
    assert max(staleness) == search.progress.staleness_max == 0
    proposed = sum(isinstance(event, Asked) for event in events)
    assert shown.proposals == search.progress.proposals == proposed


def test_a_search_whose_limit_was_raised_is_not_over() -> None:
    end, more = Ended(reason="used"), Raised(minutes=2.0)
    assert [has_ended(told) for told in ([], [end], [end, more], [end, more, end])] == [
        False,
        True,
        False,
        True,
    ]


def test_the_time_between_the_end_and_the_raise_is_not_the_searchs() -> None:
    times = ((0.0, Opened(session=1)), (60.0, Ended(reason="used")), (9e4, Raised(minutes=2.0)))
    times += ((9.9e4, Opened(session=2)), (9.9e4 + 30.0, Ended(reason="used")))
    entries = [Entry(number=n, time=time, event=event) for n, (time, event) in enumerate(times, 1)]
    assert active_s(entries) == 90.0
    assert fold(entries).minutes == pytest.approx(1.5)
    assert [(one.time, one.minutes) for one in fold(entries).raises] == [(9e4, 1.0)]


@pytest.mark.parametrize(
    ("budget", "wanted", "reason"),
    [
        (Budget(usd=0.1), Raised(usd=0.2), "spent 0.20 of 0.20 dollars"),
        (Budget(tokens=1_000), Raised(tokens=2_000), "used 2000 of 2000 tokens"),
    ],
)
def test_money_and_tokens_are_raised_too(budget: Budget, wanted: Raised, reason: str) -> None:
    proposer, settings = SimulatedProposer(usd=0.01, tokens=100), SearchSettings(num_steps=60, budget=budget)
    search, journal = opened(settings, SMOOTH, [])
    for expected in (None, reason):
        while not isinstance(asked := search.ask(), Done):
            if isinstance(asked, Brief):
                search.propose(proposer.answer(asked))  # type: ignore[arg-type]
            for ready in search.take_ready():
                request = EvalRequest(
                    task=SMOOTH.task, source=ready.candidate.source, protocol=EvalProtocol()
                )
                search.tell(ready.candidate.id, judge(request), repeat=ready.repeat)
        if expected:
            assert asked.reason == expected
        search, journal = opened(settings, SMOOTH, [*journal.events, wanted])


def test_minutes_are_raised_too() -> None:
    settings = SearchSettings(num_steps=2, budget=Budget(minutes=1.0))
    search, journal = opened(settings, SMOOTH, [])
    assert go_on(search, SMOOTH, elapsed_s=61.0) == "ran for 1.0 of 1 minutes"
    search, _ = opened(settings, SMOOTH, [*journal.events, Raised(minutes=3.0)])
    assert go_on(search, SMOOTH, elapsed_s=61.0) == "all 10 proposals were asked for"


LIMITED = SearchSettings(num_steps=30, budget=Budget(evaluations=30, usd=1.0, minutes=10.0))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Raised(evaluations=30), "--max-evals 30: run has 30 evaluations already, and 1 evaluation are used"),
        (Raised(evaluations=12), "Give more than 30, in all"),
        (Raised(usd=0.5), "--max-usd 0.5: run has 1.00 dollars already. Give more than 1, in all"),
        (Raised(minutes=11.0), "10 minutes already, and 12.5 minutes are used. Give more than 12.5"),
        (
            Raised(tokens=5),
            "--max-tokens 5: run has no such limit, so there is none to raise. Those that it has: "
            "--num-steps 30, --max-evals 30, --max-usd 1, --max-minutes 10.",
        ),
        (Raised(num_steps=3), "--num-steps 3: run has 30 steps already. Give more than 30"),
    ],
)
def test_a_limit_that_would_raise_nothing_is_refused(wanted: Raised, said: str) -> None:
    search, _ = opened(LIMITED, SMOOTH, [])
    progress = replace(search.progress, evaluations=1)
    with pytest.raises(UserError) as refused:
        check_raise(LIMITED, wanted, progress, elapsed_s=750.0, name="run")
    assert said in str(refused.value)


def test_a_session_has_nobody_to_go_on() -> None:
    session = replace(LIMITED, algorithm="session")
    progress = opened(session, SMOOTH, [])[0].progress
    with pytest.raises(UserError, match="its kernels came from outside \\(session\\)"):
        check_raise(session, Raised(evaluations=50), progress, elapsed_s=0.0, name="run")


def test_steps_follow_the_evaluations_where_they_were_chosen_by_them() -> None:
    assert with_steps(LIMITED, Raised(evaluations=50)) == Raised(evaluations=50, num_steps=50)
    assert with_steps(LIMITED, Raised(usd=2.0)) == Raised(usd=2.0)
    assert with_steps(LIMITED, Raised(evaluations=50, num_steps=90)).num_steps == 90
    own = replace(LIMITED, num_steps=90)
    assert with_steps(own, Raised(evaluations=95)) == Raised(evaluations=95)


def test_changes_are_said_with_what_was_before() -> None:
    wanted = Raised(num_steps=50, evaluations=50, usd=2.5, minutes=12.5)
    said = "30 evaluations to 50 evaluations, 1.00 dollars to 2.50 dollars, 10 minutes to 12.5 minutes"
    assert changes(LIMITED, wanted) == said
    assert changes(raised(LIMITED, wanted), Raised(num_steps=99)) == "50 steps to 99 steps"
    grows = replace(LIMITED, budget=Budget(evaluations=15, grows=True))
    assert "what the sweep shares to 50 evaluations for each search" in changes(grows, Raised(evaluations=50))
    assert raised(grows, Raised(evaluations=50)).budget == grows.budget
    assert in_force(LIMITED, (wanted, Raised(usd=9.0))).budget == Budget(
        evaluations=50, usd=9.0, minutes=12.5
    )


def test_equal_raises_in_a_row_are_as_one() -> None:
    """A command that was killed among the journals of a sweep is given again."""
    settings = SearchSettings(num_steps=2)
    events = whole(settings, SMOOTH)
    twice = opened(settings, SMOOTH, [*events, *itertools.repeat(Raised(num_steps=3), 2)])[0]
    assert view(twice) == view(opened(settings, SMOOTH, [*events, Raised(num_steps=3)])[0])
