from __future__ import annotations

import itertools

import pytest

from kbopt.core.events import Asked, Dropped, Evaluated
from kbopt.core.search import Search
from kbopt.core.settings import Budget, SearchSettings
from kbopt.simulated import LANDSCAPES, Latency, ListJournal, SimulatedProposer, simulate
from tests.simulation.reference import original_priority_search

PROPOSER = SimulatedProposer()


def run(settings, landscape, **world):
    return simulate(settings, landscape, proposer=PROPOSER, **world)


@pytest.mark.parametrize("name", ["sim/smooth", "sim/rugged", "sim/faulty"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"score_function": "ucb"},
        {"score_function": "ucb", "exploration": 0.3, "num_candidates": 3, "num_proposals": 2},
        {"algorithm": "PS_epsNet", "epsilon": 0.4},
        {"algorithm": "PS_epsNet", "epsilon": 2.1, "num_steps": 3},
        {"num_candidates": 1, "num_proposals": 4},
        {"num_candidates": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", [0, 1])
def test_one_explorer_makes_the_original_choices(name, options, seed):
    settings = SearchSettings(**{"num_steps": 6, **options}, synchronous=True, seed=seed)
    landscape = LANDSCAPES[name]
    evaluations, parents, dropped, answers = original_priority_search(settings, landscape, PROPOSER)

    report = run(settings, landscape)

    events = report.events
    assert [
        (e.candidate, e.repeat) for e in events if isinstance(e, Evaluated) and not e.is_final
    ] == evaluations
    assert {e.brief: e.parent for e in events if isinstance(e, Asked)} == parents
    assert sorted(e.candidate for e in events if isinstance(e, Dropped)) == sorted(dropped)
    at_its_end = Search(task=landscape.task, settings=settings, journal=ListJournal())
    at_its_end.replay(itertools.takewhile(lambda e: not getattr(e, "is_final", False), events))
    assert at_its_end.best.candidate.id == answers[-1]  # the original measures no finals


def test_the_steps_cost_what_the_original_costs():
    report = run(SearchSettings(num_steps=4, synchronous=True), LANDSCAPES["sim/smooth"])
    # Five copies of the first kernel, then per step five proposals, and five parents but for the last step.
    assert report.progress.evaluations + report.progress.cached == 5 + 4 * 5 + 3 * 5
    assert report.progress.proposals == 1 + 4 * 5


def test_more_explorers_wait_at_every_barrier():
    settings = SearchSettings(num_steps=5, synchronous=True, seed=3)
    latency = Latency(mean_s=30.0, deviation_s=20.0, smallest_s=1.0)
    report = simulate(
        settings, LANDSCAPES["sim/smooth"], explorers=12, proposal_latency=latency, evaluation_s=5.0
    )
    asked = [e for e in report.events if isinstance(e, Asked) and e.parent is not None]
    versions = [e.memory_version for e in asked]
    assert versions == [5] * 5 + [15] * 5 + [25] * 5 + [35] * 5 + [45] * 5


def test_all_proposals_of_a_step_are_written_at_the_same_time():
    settings = SearchSettings(num_steps=2, num_candidates=4, num_proposals=5, synchronous=True)
    world = {"explorers": 20, "proposal_latency": Latency(mean_s=100.0), "evaluation_s": 1.0}
    report = simulate(settings, LANDSCAPES["sim/smooth"], **world)
    # The first kernel and its copies, twenty proposals, four parents again, twenty proposals, three finals
    # and the winner's full evaluation.
    assert report.seconds == (100 + 4) + (100 + 20) + 4 + (100 + 20) - report.progress.cached + 3 + 1


@pytest.mark.parametrize("limit", range(1, 32))
def test_a_budget_of_evaluations_ends_a_step_early_and_wastes_nothing(limit):
    settings = SearchSettings(num_steps=9, synchronous=True, budget=Budget(evaluations=limit))
    report = run(settings, LANDSCAPES["sim/smooth"])
    assert report.progress.evaluations == limit
    assert report.progress.in_flight == 0


def test_failed_proposals_do_not_stall_a_step():
    proposer = SimulatedProposer(failure_rate=0.6)
    settings = SearchSettings(num_steps=8, num_candidates=2, synchronous=True, seed=5)
    report = simulate(settings, LANDSCAPES["sim/smooth"], proposer=proposer)
    first_kernels = sum(isinstance(e, Asked) and e.parent is None for e in report.events)
    assert report.progress.proposals == first_kernels + 16
    assert report.progress.proposal_failures >= 5
