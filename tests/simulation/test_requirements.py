"""One test per requirement of the search, by its name; docs/search.md lists them."""

from __future__ import annotations

import asyncio
import dataclasses
import statistics

import pytest

from kbopt.cluster.evaluator import EvaluationQueue
from kbopt.core.costs import Rent, Usage
from kbopt.core.evaluations import EvalRequest
from kbopt.core.events import Asked, Dropped, Evaluated, Proposed, RemeasureAsked, Summarized
from kbopt.core.proposals import Brief, NoProposal
from kbopt.core.protocol import EvalProtocol
from kbopt.core.scoring import mean_score
from kbopt.core.search import Search
from kbopt.core.settings import Budget, SearchSettings
from kbopt.core.targets import sure_share
from kbopt.core.work import Done, Wait
from kbopt.simulated import LANDSCAPES, Latency, ListJournal, SimulatedBackend, SimulatedProposer, simulate
from kbopt.simulated.backend import judge
from kbopt.simulated.kernels import to_source
from kbopt.store.cache import EvaluationCache
from tests.simulation.world import World

SMOOTH = LANDSCAPES["sim/smooth"]
FAULTY = LANDSCAPES["sim/faulty"]
PROPOSER = SimulatedProposer()
TWELVE = {
    "explorers": 12,
    "proposal_latency": Latency(mean_s=30.0, deviation_s=20.0, smallest_s=1.0),
    "evaluation_s": 5.0,
}


def new_search(landscape=SMOOTH, journal=None, **settings) -> Search:
    return Search(task=landscape.task, settings=SearchSettings(**settings), journal=journal or ListJournal())


def measure(search: Search, landscape=SMOOTH) -> None:
    """Evaluate whatever is ready."""
    for ready in search.take_ready():
        request = EvalRequest(
            task=landscape.task, source=ready.candidate.source, protocol=EvalProtocol(), repeat=ready.repeat
        )
        search.tell(ready.candidate.id, judge(request), repeat=ready.repeat)


def advance(search: Search, proposals: int, landscape=SMOOTH) -> None:
    for _ in range(proposals):
        search.propose(PROPOSER.answer(search.ask()))
        measure(search, landscape)


def test_requirement_1_asynchronous():
    search = new_search()
    briefs = [search.ask() for _ in range(8)]  # nobody waits, though nothing has been measured
    assert [brief.parent for brief in briefs] == [None] * 8
    for brief in reversed(briefs):
        search.propose(PROPOSER.answer(brief))
    measure(search)
    brief = search.ask()
    assert brief.parent == search.best
    assert brief.memory_version == 8
    assert search.progress.staleness_max == 7


def test_requirement_1_explorers_spread_over_kernels_that_are_about_as_good():
    search = new_search(num_candidates=2, num_steps=50)
    good, near, poor = (6,) * 8, (6,) * 7 + (5,), (3,) * 8  # the second is slower by three percent
    for point in (good, near, poor):
        search.propose(dataclasses.replace(PROPOSER.answer(search.ask()), source=to_source(point)))
    measure(search)
    parents = [search.ask().parent.candidate.id for _ in range(12)]
    assert parents[0] == "c000001"
    assert set(parents) == {"c000001", "c000002"}


def test_requirement_2_no_wasted_evaluation():
    def scores_at_repeats(report):
        """For each measurement that was repeated: its source's score, and all sources' scores, best first."""
        sources: dict[str, str] = {}
        scores: dict[str, float] = {}
        for event in report.events:
            if isinstance(event, Proposed):
                sources[event.candidate.id] = event.candidate.source
            if isinstance(event, Evaluated) and event.repeat == 0:
                scores[sources[event.candidate]] = getattr(event.result.outcome, "speedup", 0.0)
            if isinstance(event, RemeasureAsked) and not event.is_final:
                yield scores[sources[event.candidate]], sorted(scores.values(), reverse=True)

    exact = simulate(SearchSettings(num_steps=20), SMOOTH, **TWELVE)
    assert exact.progress.evaluations <= exact.progress.proposals == 100
    assert exact.progress.cached > 0
    # Without noise nothing is measured again but kernels that are equally fast.
    for score, scores in scores_at_repeats(exact):
        assert score == scores[0] == scores[1]

    noisy = simulate(SearchSettings(num_steps=20), FAULTY, **TWELVE)
    assert 0 < noisy.progress.remeasurements <= 0.1 * noisy.progress.evaluations
    for score, scores in scores_at_repeats(noisy):
        assert score > 0.8 * scores[0]


@pytest.mark.parametrize("memory_size", [10, 1000])
def test_requirement_3_exact_memory(memory_size):
    world = World(SearchSettings(num_steps=12, memory_size=memory_size), FAULTY, seed=1).run()
    results = {}
    for event in world.journal.events:
        if isinstance(event, Evaluated) and not event.is_final:
            results.setdefault(event.candidate, []).append(getattr(event.result.outcome, "speedup", 0.0))
    ranked = sorted(results, key=lambda key: (statistics.fmean(results[key]), key), reverse=True)
    assert [trial.candidate.id for trial in world.search.top(5)] == ranked[:5]
    assert len(world.search.top(99)) == min(memory_size, len(ranked))


def test_requirement_4_epsilon_net_without_a_key():
    journal = ListJournal()
    search = new_search(journal=journal, algorithm="PS_epsNet")
    first, second = search.ask(), search.ask()
    kernel = PROPOSER.answer(first)
    search.propose(kernel)
    renamed = kernel.source.replace("ModelNew", "Renamed").replace("\n", "\n\n") + "# the same"
    search.propose(dataclasses.replace(kernel, id=second.id, source=renamed))
    assert journal.events[-1] == Dropped(candidate=second.id, neighbour=first.id, distance=0.0)
    assert [ready.candidate.id for ready in search.take_ready()] == [first.id]
    assert search.progress.dropped == 1


def test_requirement_5_summaries():
    journal = ListJournal()
    search = new_search(journal=journal, algorithm="PS_Summarizer", num_candidates=3)
    advance(search, 3)
    request = search.summary_due()
    assert request.memory_version == 3
    assert search.summary_due() is None  # it is being written,
    assert isinstance(search.ask(), Brief)  # and nobody waits for it
    search.summarized("use larger tiles", (Usage(model="m", usd=0.25),))
    assert search.ask().summary == "use larger tiles"
    assert search.progress.usd == 0.25
    assert isinstance(journal.events[-2], Summarized)

    resumed = new_search(algorithm="PS_Summarizer", num_candidates=3)
    resumed.replay(journal.events)
    assert resumed.ask().summary == "use larger tiles"
    assert resumed.outstanding()[0].summary == ""  # asked for before there was one


def test_a_summary_that_was_being_written_is_due_again_after_a_crash():
    journal = ListJournal()
    search = new_search(journal=journal, algorithm="PS_Summarizer", num_candidates=3)
    advance(search, 3)
    lost = search.summary_due()
    resumed = new_search(algorithm="PS_Summarizer", num_candidates=3)
    resumed.replay(journal.events)
    assert resumed.summary_due() == lost


def test_requirement_6_refinement_of_kernels_that_say_what_can_be_tuned():
    report = simulate(SearchSettings(num_steps=20, refinement=True), SMOOTH)
    actions = [event.action for event in report.events if isinstance(event, Asked)]
    assert actions[:5] == ["propose"] * 5  # a first kernel cannot be refined
    assert {"propose", "refine"} <= set(actions)
    unasked = simulate(SearchSettings(num_steps=20), SMOOTH)
    assert {e.action for e in unasked.events if isinstance(e, Asked)} == {"propose"}


async def test_requirement_7_failures_are_not_scores(tmp_path):
    async def searched(name, infra_failure_rate):
        """The search's end and the number of lost attempts, with the evaluator's real queue in between."""
        backend = SimulatedBackend(infra_failure_rate=infra_failure_rate)
        queue = EvaluationQueue(backend, EvaluationCache(tmp_path / name), retry_delays_s=(0.0,) * 8)
        search, lost = new_search(FAULTY, num_steps=6), 0
        while isinstance(asked := search.ask(), Brief):
            search.propose(PROPOSER.answer(asked))
            for ready in search.take_ready():
                request = EvalRequest(
                    task=FAULTY.task,
                    source=ready.candidate.source,
                    protocol=EvalProtocol(),
                    repeat=ready.repeat,
                )
                answer = await queue.evaluate("s", request)
                lost += len(answer.failures)
                search.tell(ready.candidate.id, answer.result, repeat=ready.repeat, cached=answer.cached)
        await queue.close()
        return [mean_score(trial) for trial in search.top(99)], search.progress, lost

    reliable, progress, none = await searched("reliable", 0.0)
    unreliable, same_progress, some = await searched("unreliable", 0.4)
    assert none == 0
    assert some >= 5
    assert (unreliable, same_progress) == (reliable, progress)


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(evaluations=7), "the budget of 7 evaluations is used"),
        (Budget(usd=0.05), "spent 0.05 of 0.05 dollars"),
        (Budget(tokens=500), "used 500 of 500 tokens"),
        (Budget(minutes=1.0), "ran for 1.1 of 1 minutes"),
    ],
)
def test_requirement_8_budgets(budget, reason):
    search = new_search(budget=budget)
    proposer = SimulatedProposer(usd=0.01, tokens=100)
    for number in range(100):
        asked = search.ask(elapsed_s=number * 7.0)
        if isinstance(asked, Done):
            break
        if isinstance(asked, Brief):
            search.propose(proposer.answer(asked))
        measure(search)
    assert asked == Done(reason=reason)
    assert search.ended == reason


def test_requirement_8_the_budget_of_dollars_counts_containers_too_also_after_a_resume():
    journal = ListJournal()
    search = new_search(journal=journal, budget=Budget(usd=0.05))
    advance(search, 2)
    search.pay_rent(Rent(gpu="L4", seconds=120.0, usd=0.04))
    assert isinstance(search.ask(), Brief)
    resumed = new_search(budget=Budget(usd=0.05))
    resumed.replay(journal.events)
    resumed.pay_rent(Rent(gpu="L4", seconds=60.0, usd=0.02))
    assert resumed.ask() == Wait(reason="spent 0.06 of 0.05 dollars")
    assert resumed.progress.usd == pytest.approx(0.06)


def test_requirement_8_the_end_waits_for_what_is_in_flight():
    search = new_search(budget=Budget(evaluations=1))
    brief = search.ask()
    assert search.ask() == Wait(reason="the budget of 1 evaluation is used")
    search.fail(brief.id, NoProposal(reason="no idea"))
    assert isinstance(search.ask(), Brief)  # the evaluation was not used after all


def test_requirement_8_no_summary_is_paid_for_once_a_budget_is_used():
    for budget in (Budget(usd=0.25), Budget(tokens=250), Budget(evaluations=3)):
        search = new_search(algorithm="PS_Summarizer", num_candidates=3, budget=budget)
        for _ in range(3):
            search.propose(SimulatedProposer(usd=0.1, tokens=100).answer(search.ask()))
            measure(search)
        assert search.summary_due() is None


def test_requirement_8_a_target_ends_the_search_early():
    search = new_search(target_speedup=0.35, num_steps=40)
    while isinstance(asked := search.ask(), Brief):
        search.propose(PROPOSER.answer(asked))
        measure(search)
    assert asked.reason == "the best kernel is more than 0.35 times as fast as the reference"
    assert search.progress.proposals < 200


def test_requirement_8_a_share_of_the_roofline_ends_the_search_early():
    search = new_search(target_roofline=0.12, num_steps=40)
    while isinstance(asked := search.ask(), Brief):
        search.propose(PROPOSER.answer(asked))
        measure(search)
    assert asked.reason == "the best kernel is at 12% of its roofline or above it"
    assert search.progress.proposals < 200
    assert search.best is not None
    assert len(search.best.results) > 1
    assert sure_share(search.best) >= 0.12


def test_requirement_9_resume():
    journal = ListJournal()
    search = new_search(journal=journal)
    advance(search, 6)
    in_flight, unasked = search.ask(), search.ask()
    search.propose(PROPOSER.answer(in_flight))
    assert len(search.take_ready()) == 1  # taken by an evaluator that dies

    resumed = new_search()
    resumed.replay(journal.events)
    assert resumed.outstanding() == (unasked,)
    assert [ready.candidate.id for ready in resumed.take_ready()] == [in_flight.id]
    assert resumed.best == search.best
    assert resumed.progress == search.progress
    assert resumed.ask() == search.ask()


@pytest.mark.parametrize("name", LANDSCAPES)
def test_requirement_10_proof(name):
    def median(algorithm):
        finals = [
            simulate(
                SearchSettings(algorithm=algorithm, seed=s, num_steps=99, budget=Budget(evaluations=100)),
                LANDSCAPES[name],
                **TWELVE,
            ).final
            for s in range(5)
        ]
        return statistics.median(finals)

    baselines = max(median("best_of_n"), median("random"))
    assert median("PS") > (baselines if name == "sim/deceptive" else 1.2 * baselines)


def test_answers_to_unknown_briefs_are_refused():
    search = new_search()
    with pytest.raises(ValueError, match="'c000009' is not a brief of this search"):
        search.fail("c000009", NoProposal(reason=""))
    brief = search.ask()
    with pytest.raises(ValueError, match="'c000001' was never proposed"):
        search.tell(brief.id, None)
    with pytest.raises(ValueError, match="no summary was asked for"):
        search.summarized("", ())


def test_exemplars_work_differ_from_the_parent_and_come_from_elsewhere_first():
    search = new_search(landscape=FAULTY, num_exemplars=3)
    advance(search, 15, FAULTY)
    brief = search.ask()
    shown = [trial.candidate for trial in brief.exemplars]
    assert len({brief.parent.candidate.source, *(c.source for c in shown)}) == 4
    assert all(mean_score(trial) > 0.0 for trial in brief.exemplars)
    origins = [origin(search, c.id) for c in shown]
    assert origins[0] != origin(search, brief.parent.candidate.id)


def origin(search: Search, key: str) -> str:
    parents = {trial.candidate.id: trial.candidate.parent for trial in search.top(99)}
    while parents[key] is not None:
        key = parents[key]
    return key


def test_best_of_n_proposes_independently_and_random_from_anyone():
    independent = simulate(SearchSettings(algorithm="best_of_n", num_steps=6), SMOOTH)
    assert {e.parent for e in independent.events if isinstance(e, Asked)} == {None}
    uniform = simulate(SearchSettings(algorithm="random", num_steps=40), SMOOTH)
    parents = [e.parent for e in uniform.events if isinstance(e, Asked) and e.parent]
    assert len(set(parents)) > 60
    assert not any(e.exemplars for e in uniform.events if isinstance(e, Asked))


async def test_the_simulated_proposer_takes_its_time_and_gives_the_same_answer():
    proposer = SimulatedProposer(latency=Latency(mean_s=0.02))
    brief = new_search().ask()
    async with asyncio.timeout(5.0):
        assert await proposer.propose(brief) == proposer.answer(brief)


@pytest.mark.parametrize("come_back", ["measured", "failed", "dropped"])
def test_a_parent_is_full_price_again_when_its_work_has_come_back(come_back):
    search = new_search(num_candidates=2, num_steps=50, algorithm="PS_epsNet", num_exemplars=0)
    for point in ((6,) * 8, (6,) * 7 + (5,)):  # the second is slower by three percent
        brief = search.ask()
        search.propose(dataclasses.replace(PROPOSER.answer(brief), source=to_source(point)))
    measure(search)
    assert search.best.candidate.id == "c000001"
    briefs = []
    while not briefs or briefs[-1].parent.candidate.id == "c000001":
        briefs.append(search.ask())
    assert len(briefs) > 2  # the discount reached the second
    for number, brief in enumerate(briefs):
        slow = to_source((0,) * 7 + (number,))
        known = brief.parent.candidate.source
        answer = PROPOSER.answer(brief)
        if come_back == "failed":
            search.fail(brief.id, NoProposal(reason="no idea"))
        else:
            source = slow if come_back == "measured" else known
            search.propose(dataclasses.replace(answer, source=source))
    measure(search)
    again = [search.ask().parent.candidate.id for _ in briefs]
    assert again == [brief.parent.candidate.id for brief in briefs]
