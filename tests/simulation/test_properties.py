from __future__ import annotations

import copy
import dataclasses

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kbopt.core import codec
from kbopt.core.events import FINAL_REPEAT, Asked, Ended, Event, ProposalFailed, Proposed
from kbopt.core.search import Search
from kbopt.core.settings import Budget, SearchSettings
from kbopt.simulated import LANDSCAPES, Latency, SimulatedProposer, simulate
from tests.simulation.world import World

SEEDS = st.integers(0, 10_000)
LANDSCAPE = st.sampled_from(list(LANDSCAPES.values()))
ASYNCHRONOUS = st.builds(
    SearchSettings,
    algorithm=st.sampled_from(
        ["PS", "PS_Summarizer", "PS_epsNet", "PS_epsNet_Summarizer", "best_of_n", "random"]
    ),
    score_function=st.sampled_from(["mean", "ucb", "lcb"]),
    num_steps=st.integers(1, 6),
    num_candidates=st.integers(1, 4),
    epsilon=st.sampled_from([0.02, 0.3]),
    memory_size=st.sampled_from([3, 1000]),
    remeasure_share=st.sampled_from([0.0, 0.3]),
    ties=st.sampled_from(["newest", "oldest"]),
    refinement=st.booleans(),
    seed=SEEDS,
)
SYNCHRONOUS = st.builds(
    SearchSettings,
    algorithm=st.sampled_from(["PS", "PS_Summarizer", "PS_epsNet", "PS_epsNet_Summarizer"]),
    score_function=st.sampled_from(["mean", "ucb"]),
    num_steps=st.integers(1, 4),
    num_candidates=st.integers(1, 3),
    num_proposals=st.integers(1, 2),
    epsilon=st.sampled_from([0.02, 0.3]),
    synchronous=st.just(True),
    seed=SEEDS,
)
ANY = ASYNCHRONOUS | SYNCHRONOUS
LIGHT = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def view(search: Search) -> tuple[object, ...]:
    """All that can be read from a search."""
    return (search.outstanding(), search.best, search.progress, search.top(50), search.ended)


def failed(world: World) -> bool:
    """Whether a proposal of it failed."""
    return any(isinstance(event, ProposalFailed) for event in world.journal.events)


@settings(LIGHT, max_examples=15)
@given(ANY, LANDSCAPE, SEEDS)
def test_replay_equals_live_after_every_call(options, landscape, seed):
    world = World(options, landscape, seed=seed)
    for _ in range(120):
        if world.stopped:
            break
        world.move()
        if world.rng.random() < 0.7:
            continue
        replayed = world.new_search(journal := type(world.journal)())
        replayed.replay(world.journal.events)
        assert journal.events == []
        assert view(replayed) == view(world.search)
        live = copy.deepcopy(world.search)
        again = {(ready.candidate.id, ready.repeat) for ready in replayed.take_ready()}
        fresh = {(ready.candidate.id, ready.repeat) for ready in live.take_ready()}
        assert again == fresh | {(ready.candidate.id, ready.repeat) for ready in world.measuring}
        if any(isinstance(event, Proposed) for event in world.journal.events) or not failed(world):
            assert replayed.ask() == live.ask()  # else a resume asks again for what failed


@LIGHT
@given(ANY, LANDSCAPE, SEEDS, st.data())
def test_a_search_killed_after_any_event_is_resumed_and_loses_nothing(options, landscape, seed, data):
    world = World(options, landscape, seed=seed).run()
    kept = data.draw(st.integers(0, len(world.journal.events)))
    resumed = World(options, landscape, seed=seed + 1)
    resumed.journal.events += world.journal.events[:kept]
    resumed.search.replay(world.journal.events[:kept])
    resumed.briefs = list(resumed.search.outstanding())
    resumed.run()
    assert resumed.journal.events[:kept] == world.journal.events[:kept]
    proposals = options.num_total_proposals
    if not options.synchronous:
        before = world.journal.events[:kept]
        has_kernels = any(isinstance(event, Proposed) for event in before)
        forgiven = 0 if has_kernels else sum(isinstance(event, ProposalFailed) for event in before)
        assert world.search.progress.proposals == proposals
        assert resumed.search.progress.proposals == proposals + forgiven
    final = World(options, landscape, seed=0)
    final.search.replay(resumed.journal.events)
    assert view(final.search) == view(resumed.search)


@LIGHT
@given(ANY, LANDSCAPE, SEEDS)
def test_no_measurement_is_handed_out_twice_and_none_is_forgotten(options, landscape, seed):
    world = World(options, landscape, seed=seed).run()
    assert len(world.taken) == len(set(world.taken))
    assert world.search.progress.in_flight == 0
    progress = world.search.progress
    in_search = [taken for taken in world.taken if taken[1] < FINAL_REPEAT]
    assert progress.evaluations + progress.cached == len(in_search)
    assert len(world.answered) == sum(repeat == 0 for _, repeat in world.taken) + progress.dropped


@LIGHT
@given(ANY, LANDSCAPE, SEEDS, st.integers(1, 20), st.integers(1, 8))
def test_a_budget_of_evaluations_is_never_exceeded(options, landscape, seed, limit, explorers):
    bounded = dataclasses.replace(options, budget=Budget(evaluations=limit))
    world = World(bounded, landscape, seed=seed, explorers=explorers).run()
    assert world.search.progress.evaluations <= limit


@LIGHT
@given(ASYNCHRONOUS, LANDSCAPE, SEEDS, st.integers(1, 8))
def test_money_and_tokens_are_exceeded_by_no_more_than_the_work_in_flight(
    options, landscape, seed, explorers
):
    # Every proposal costs 100 tokens and a cent, so does every summary.
    by_tokens = World(
        dataclasses.replace(options, budget=Budget(tokens=750)), landscape, seed=seed, explorers=explorers
    ).run()
    assert by_tokens.search.progress.tokens < 750 + 100 * (explorers + 1)
    by_money = World(
        dataclasses.replace(options, budget=Budget(usd=0.075)), landscape, seed=seed, explorers=explorers
    ).run()
    assert by_money.search.progress.usd < 0.075 + 0.01 * (explorers + 1)


@LIGHT
@given(ASYNCHRONOUS, LANDSCAPE, SEEDS)
def test_repeats_stay_within_their_share(options, landscape, seed):
    progress = World(options, landscape, seed=seed).run().search.progress
    assert progress.remeasurements <= options.remeasure_share * progress.evaluations


@LIGHT
@given(SYNCHRONOUS, LANDSCAPE, SEEDS, SEEDS)
def test_the_order_of_answers_changes_no_answer_in_synchronous_mode_with_one_explorer(
    options, landscape, one, other
):
    worlds = [World(options, landscape, seed=seed, explorers=1).run() for seed in (one, other)]
    sources = [[candidate.source for candidate in world.answered] for world in worlds]
    assert sources[0] == sources[1]
    assert len({world.search.best and world.search.best.candidate.id for world in worlds}) == 1


@LIGHT
@given(ANY, LANDSCAPE)
def test_a_seed_fixes_a_whole_simulated_search(options, landscape):
    world = {"explorers": 5, "proposal_latency": Latency(mean_s=30.0, deviation_s=20.0), "evaluation_s": 5.0}
    assert simulate(options, landscape, **world) == simulate(options, landscape, **world)


@LIGHT
@given(ANY, LANDSCAPE, SEEDS)
def test_events_survive_the_codec(options, landscape, seed):
    for event in World(options, landscape, seed=seed).run().journal.events:
        assert codec.loads(Event, codec.dumps(event)) == event


@LIGHT
@given(ANY, LANDSCAPE, SEEDS)
def test_brief_ids_count_up_without_gaps_and_seeds_differ(options, landscape, seed):
    events = World(options, landscape, seed=seed).run().journal.events
    asked = [event for event in events if isinstance(event, Asked)]
    assert [event.brief for event in asked] == [f"c{number:06d}" for number in range(1, len(asked) + 1)]
    assert len({event.seed for event in asked}) == len(asked)


def test_the_proposer_depends_on_the_brief_alone():
    world = World(SearchSettings(), LANDSCAPES["sim/smooth"], seed=0)
    brief = world.search.ask()
    assert SimulatedProposer().answer(brief) == SimulatedProposer().answer(brief)


def test_the_end_is_recorded_once():
    world = World(SearchSettings(num_steps=1), LANDSCAPES["sim/smooth"], seed=0).run()
    world.search.ask()
    world.search.end("again")
    assert sum(isinstance(event, Ended) for event in world.journal.events) == 1
