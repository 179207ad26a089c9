"""The final measurements: outside the budget, the same after a crash, and alone in naming the winner."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from kbopt.core.evaluations import EvalRequest
from kbopt.core.events import FINAL_REPEAT, FULL_REPEAT, Ended, Entry, Evaluated, Event, RemeasureAsked
from kbopt.core.outcomes import Audit, Crashed, Measured, Outcome, WrongAnswer
from kbopt.core.proposals import Brief
from kbopt.core.protocol import EvalProtocol
from kbopt.core.scoring import mean_score, score, score_interval
from kbopt.core.search import Search
from kbopt.core.settings import Budget, SearchSettings
from kbopt.core.work import Done
from kbopt.reporting.evidence import evidence
from kbopt.reporting.history import fold
from kbopt.simulated import Landscape, ListJournal, SimulatedProposer
from kbopt.simulated.backend import judge
from tests.simulation.world import World

NOISY = Landscape(shape="smooth", noise=0.2)
PROPOSER = SimulatedProposer()


def finals(events: list[Event]) -> dict[str, float]:
    """The score of each measurement that named the winner."""
    told = [event for event in events if isinstance(event, Evaluated) and event.repeat == FINAL_REPEAT]
    return {event.candidate: score(event.result.outcome) for event in told}


def history_best(events: list[Event]) -> tuple[str, float, tuple[float, float]]:
    entries = [Entry(number=n, time=float(n), event=event) for n, event in enumerate(events, start=1)]
    best = fold(entries).best
    assert best is not None
    assert best.speedup is not None
    assert best.ci is not None
    return best.candidate.id, best.speedup, best.ci


@pytest.mark.parametrize("synchronous", [False, True])
def test_the_best_three_sources_are_measured_again_and_those_results_alone_name_the_winner(
    synchronous: bool,
) -> None:
    settings = SearchSettings(num_steps=4, synchronous=synchronous, budget=Budget(evaluations=20))
    world = World(settings, NOISY, seed=3).run()
    events = world.journal.events
    scores = finals(events)
    assert len(scores) == 3
    assert world.search.best is not None
    assert world.search.best.candidate.id == max(scores, key=scores.__getitem__)
    assert mean_score(world.search.best) == max(scores.values())
    assert world.search.progress.evaluations <= 20
    end = next(n for n, event in enumerate(events) if isinstance(event, Ended))
    asked = [n for n, e in enumerate(events) if isinstance(e, RemeasureAsked) and e.is_final]
    assert min(asked) > end


@pytest.mark.parametrize("synchronous", [False, True])
def test_search_and_history_agree_on_the_best_after_every_event(synchronous: bool) -> None:
    world = World(SearchSettings(num_steps=3, synchronous=synchronous), NOISY, seed=5).run()
    events = world.journal.events
    for end in range(1, len(events) + 1):
        if synchronous and end < len(events):
            continue  # within a step its answer is that of the last one
        search = world.new_search(ListJournal())
        search.replay(events[:end])
        if search.best is not None and isinstance(events[end - 1], Evaluated):
            best = search.best
            assert history_best(events[:end]) == (best.candidate.id, mean_score(best), score_interval(best))


def test_a_search_that_was_cut_off_among_its_finals_goes_on_with_the_same_ones() -> None:
    world = World(SearchSettings(num_steps=4), NOISY, seed=3).run()
    events = world.journal.events
    end = next(n for n, event in enumerate(events) if isinstance(event, Ended))
    for cut in range(end + 1, len(events)):
        journal = ListJournal()
        search = world.new_search(journal)
        search.replay(events[:cut])
        assert search.ended is None
        while ready := search.take_ready():
            for one in ready:
                request = EvalRequest(
                    task=NOISY.task, source=one.candidate.source, protocol=EvalProtocol(), repeat=one.repeat
                )
                search.tell(one.candidate.id, judge(request), repeat=one.repeat)
        assert isinstance(search.ask(), Done)
        assert search.ended == world.search.ended
        assert finals([*events[:cut], *journal.events]).keys() == finals(events).keys()


def told(speedup: float) -> Measured:
    return Measured(
        kernel_ms=(1.0,),
        reference_ms=(speedup,),
        speedup=speedup,
        speedup_ci=(0.9 * speedup, 1.1 * speedup),
        native_ms=1.0,
        wall_ms=1.0,
        audit=Audit(custom_kernel=True),
    )


def measure(search: Search, outcomes: Mapping[tuple[str, int], Outcome]) -> list[tuple[str, int]]:
    """Tell what is ready, in order; the result names it."""
    taken = []
    for ready in search.take_ready():
        key = (ready.candidate.id, ready.repeat)
        request = EvalRequest(task=NOISY.task, source=ready.candidate.source, protocol=EvalProtocol())
        search.tell(key[0], replace(judge(request), outcome=outcomes[key]), repeat=key[1])
        taken.append(key)
    return taken


def test_a_kernel_that_fails_its_final_measurement_is_no_winner() -> None:
    journal = ListJournal()
    search = Search(task=NOISY.task, settings=SearchSettings(), journal=journal)
    for number, source in enumerate(("a = 1", "b = 1", "a = 1"), start=1):
        brief = search.ask()
        assert isinstance(brief, Brief)
        search.propose(replace(PROPOSER.answer(brief), source=source))
        measure(search, {(brief.id, 0): told(4.0 - number), (brief.id, 1): told(2.5)})
    search.end("enough")
    lost = Crashed(reason="out of memory", how="RuntimeError")
    outcomes: dict[tuple[str, int], Outcome] = {
        ("c000001", FINAL_REPEAT): lost,
        ("c000002", FINAL_REPEAT): told(1.5),
    }
    assert set(measure(search, outcomes)) == outcomes.keys()
    assert measure(search, {("c000002", FULL_REPEAT): told(0.1)}) == [("c000002", FULL_REPEAT)]
    assert search.ended == "enough"
    assert search.best is not None
    assert (search.best.candidate.id, mean_score(search.best)) == ("c000002", 1.5)
    assert history_best(journal.events) == ("c000002", 1.5, score_interval(search.best))
    assert search.progress.best_speedup == 1.5


def finalists(journal: ListJournal, speedups: dict[str, float], answer: str = "") -> Search:
    """A search that has ended and measured one source of each name once more, at these speedups."""
    search = Search(task=NOISY.task, settings=SearchSettings(), journal=journal)
    for source in speedups:
        brief = search.ask()
        assert isinstance(brief, Brief)
        search.propose(replace(PROPOSER.answer(brief), source=f"{source} = 1"))
        measure(search, {(brief.id, repeat): told(speedups[source]) for repeat in (0, 1)})
    search.end("enough", answer=answer)
    names = [f"c{number:06d}" for number in range(1, len(speedups) + 1)]
    finals = dict(zip(names, map(told, speedups.values()), strict=True))
    measure(search, {(name, FINAL_REPEAT): outcome for name, outcome in finals.items()})
    return search


def test_a_winner_that_fails_its_full_evaluation_gives_way_to_the_next() -> None:
    """Such as one that is wrong on a workload that was held out."""
    journal = ListJournal()
    search = finalists(journal, {"a": 4.0, "b": 3.0, "c": 2.0})
    wrong = WrongAnswer(reason="on workload last: 1 of 9")

    assert measure(search, {("c000001", FULL_REPEAT): wrong}) == [("c000001", FULL_REPEAT)]
    assert search.ended is None
    assert measure(search, {("c000002", FULL_REPEAT): told(3.0)}) == [("c000002", FULL_REPEAT)]

    assert search.ended == "enough"
    assert search.best is not None
    assert (search.best.candidate.id, search.best.is_refuted) == ("c000002", False)
    assert history_best(journal.events)[:2] == ("c000002", 3.0)
    again = Search(task=NOISY.task, settings=SearchSettings(), journal=ListJournal())
    again.replay(journal.events)
    assert again.take_ready() == ()
    assert again.best == search.best


def test_where_all_fail_it_the_fastest_stays_with_what_is_wrong_with_it() -> None:
    journal = ListJournal()
    search = finalists(journal, {"a": 4.0, "b": 3.0})
    wrong = WrongAnswer(reason="on workload last: 1 of 9")
    for name in ("c000001", "c000002"):
        measure(search, {(name, FULL_REPEAT): wrong})

    assert search.ended == "enough"
    assert search.best is not None
    assert (search.best.candidate.id, search.best.is_refuted) == ("c000001", True)
    assert history_best(journal.events)[:2] == ("c000001", 4.0)


def test_the_winner_is_evaluated_in_full_once_which_changes_no_figure_but_its_own() -> None:
    world = World(SearchSettings(num_steps=4, budget=Budget(evaluations=20)), NOISY, seed=3).run()
    events, best = world.journal.events, world.search.best
    assert best is not None
    assert best.full is not None
    full = [event for event in events if isinstance(event, Evaluated) and event.is_full]
    assert [event.candidate for event in full] == [best.candidate.id]
    assert full == events[-1:]  # nothing but the winner waits for it
    assert best.full == full[0].result
    told_of = [event for event in events if isinstance(event, Evaluated) and not event.is_full]
    assert len(best.results) == sum(event.candidate == best.candidate.id for event in told_of)
    assert mean_score(best) == finals(events)[best.candidate.id]
    assert world.search.progress.evaluations <= 20
    node = fold([Entry(number=n, time=n, event=event) for n, event in enumerate(events, 1)]).best
    assert node is not None
    assert node.trial.full == best.full
    assert node.trial.judged == best.judged


def test_a_winner_whose_full_evaluation_cannot_be_made_wins_without_one() -> None:
    world = World(SearchSettings(num_steps=4), NOISY, seed=3).run()
    events = world.journal.events[:-1]
    journal = ListJournal()
    search = world.new_search(journal)
    search.replay(events)
    (ready,) = search.take_ready()
    assert ready.is_full
    search.forgo_full(ready.candidate.id, "it needs 90 GiB of host memory")
    search.forgo_full(ready.candidate.id, "said twice")
    assert search.ended == world.search.ended
    again = world.new_search(ListJournal())
    again.replay([*events, *journal.events])
    assert again.take_ready() == ()
    for told_so in (search.best, again.best):
        assert told_so is not None
        assert told_so.candidate.id == ready.candidate.id
        assert told_so.why_no_full == "it needs 90 GiB of host memory"
    whole = [Entry(number=n, time=n, event=e) for n, e in enumerate([*events, *journal.events], 1)]
    assert "needs 90 GiB of host memory" in evidence(fold(whole).best.trial)[-1].text  # type: ignore[union-attr]


def test_without_a_kernel_that_works_nothing_is_evaluated_in_full() -> None:
    search = Search(task=NOISY.task, settings=SearchSettings(), journal=ListJournal())
    first = search.ask()
    assert isinstance(first, Brief)
    search.propose(PROPOSER.answer(first))
    search.end("enough")
    assert measure(search, {(first.id, 0): Crashed(reason="no", how="SIGSEGV")}) == [(first.id, 0)]
    assert search.take_ready() == ()
    assert search.ended == "enough"


def test_a_target_is_reached_only_by_a_kernel_measured_twice() -> None:
    search = Search(task=NOISY.task, settings=SearchSettings(target_speedup=2.0), journal=ListJournal())
    first = search.ask()
    assert isinstance(first, Brief)
    search.propose(PROPOSER.answer(first))
    assert measure(search, {(first.id, 0): told(3.0)}) == [(first.id, 0)]
    assert isinstance(search.ask(), Brief)
    assert measure(search, {(first.id, 1): told(1.0)}) == [(first.id, 1)]
    assert isinstance(search.ask(), Brief)  # 3.0 was luck: the mean is 2.0


def test_a_kernel_that_was_handed_in_is_the_answer_though_another_measured_faster() -> None:
    journal = ListJournal()
    search = finalists(journal, {"a": 5.0, "b": 4.0, "c": 3.0, "d": 2.0}, answer="c000004")
    asked = [
        e.candidate for e in journal.events if isinstance(e, RemeasureAsked) and e.repeat == FINAL_REPEAT
    ]
    assert asked == ["c000001", "c000002", "c000003", "c000004"]  # the best three, and what was handed in
    assert measure(search, {("c000004", FULL_REPEAT): told(2.0)}) == [("c000004", FULL_REPEAT)]
    assert search.ended == "enough"
    assert search.best is not None
    assert search.best.candidate.id == "c000004"
    assert history_best(journal.events)[:2] == ("c000004", 2.0)
    again = Search(task=NOISY.task, settings=SearchSettings(), journal=ListJournal())
    again.replay(journal.events)
    assert again.take_ready() == ()
    assert again.best == search.best


def test_an_answer_that_fails_its_last_measurements_gives_way() -> None:
    journal = ListJournal()
    search = finalists(journal, {"a": 5.0, "b": 4.0}, answer="c000002")
    wrong = WrongAnswer(reason="on workload last: 1 of 9")
    assert measure(search, {("c000002", FULL_REPEAT): wrong}) == [("c000002", FULL_REPEAT)]
    assert measure(search, {("c000001", FULL_REPEAT): told(5.0)}) == [("c000001", FULL_REPEAT)]
    assert search.ended == "enough"
    assert history_best(journal.events)[:2] == ("c000001", 5.0)


@pytest.mark.parametrize("answer", ["c000001", "c000002"])
def test_of_equal_sources_the_one_that_was_handed_in_is_measured_once_more(answer: str) -> None:
    search = Search(task=NOISY.task, settings=SearchSettings(), journal=ListJournal())
    for _ in range(2):
        brief = search.ask()
        assert isinstance(brief, Brief)
        search.propose(replace(PROPOSER.answer(brief), source="a = 1"))
        measure(search, {(brief.id, 0): told(2.0)})
    search.end("enough", answer=answer)
    assert measure(search, {(answer, FINAL_REPEAT): told(2.0)}) == [(answer, FINAL_REPEAT)]
