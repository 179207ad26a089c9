"""Coordinator, explorers and evaluation queue in one event loop: everything real but Ray and the device."""

import asyncio
import itertools
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from kbopt.cluster.coordinator import Coordinator
from kbopt.cluster.evidence import Evidence
from kbopt.cluster.explorer import Explorer, SearchAttempts
from kbopt.cluster.messages import Answer, Failure, Idle, Lease, SearchSpec
from kbopt.cluster.running import RunningSearch
from kbopt.cluster.sharing import OUTBID
from kbopt.core.costs import Usage
from kbopt.core.embedding import LocalEmbedder
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.events import (
    FULL_REPEAT,
    Asked,
    Attempted,
    BackendStarted,
    Ended,
    Entry,
    Evaluated,
    FullForgone,
    Granted,
    InfraFailed,
    Opened,
    ProposalFailed,
    Proposed,
    Rented,
    Summarized,
    TaskProfiled,
    active_s,
)
from kbopt.core.kernel_strategies import Bound, KernelStrategy
from kbopt.core.outcomes import Audit, Measured
from kbopt.core.ports import Attempt
from kbopt.core.profile import Profiled, ProfileRequest
from kbopt.core.proposals import Brief, Candidate, NoProposal
from kbopt.core.settings import Algorithm, Budget, SearchSettings
from kbopt.core.spending import Shared
from kbopt.store.journal import SqliteJournal
from tests.cluster.lab import Lab, NumberedProposer, evaluated, events, factories, spec
from tests.core.test_bottleneck import profile


async def test_every_brief_of_every_search_is_answered_and_measured_once(tmp_path: Path) -> None:
    specs = (spec(tmp_path, "one"), spec(tmp_path, "two"))
    lab = Lab(tmp_path, specs, NumberedProposer())
    await lab.run()
    await lab.close()
    for made in specs:
        assert set(evaluated(made).values()) == {1}
        assert len(evaluated(made)) == 20


async def test_a_search_whose_proposals_all_fail_stops_and_is_not_over(tmp_path: Path) -> None:
    made = spec(tmp_path)
    lab = Lab(tmp_path, (made,), NumberedProposer(declines=1))
    await lab.run()
    (status,) = (await lab.coordinator.status()).searches
    await lab.close()
    assert status.failure is not None
    assert status.failure.kind == "user"
    assert "failed because: nothing came to mind. Mend that" in status.failure.message
    assert not any(isinstance(event, Ended) for event in events(made))
    mended = Lab(tmp_path, (made,), NumberedProposer())
    await mended.run()
    (status,) = (await mended.coordinator.status()).searches
    await mended.close()
    assert status.failure is None
    assert status.progress.evaluations >= 20


WORKING = Measured(
    kernel_ms=(1.0,),
    reference_ms=(2.0,),
    speedup=2.0,
    speedup_ci=(1.9, 2.1),
    native_ms=1.0,
    wall_ms=1.0,
    audit=Audit(custom_kernel=True),
)


@pytest.mark.parametrize("each", [False, True])
async def test_the_winner_alone_is_asked_for_with_every_baseline(tmp_path: Path, each: bool) -> None:
    made = replace(spec(tmp_path), kernelbench=each)
    lab = Lab(tmp_path, (made,), NumberedProposer())
    lab.backend.outcome = WORKING
    await lab.run()
    (status,) = (await lab.coordinator.status()).searches
    await lab.close()
    assert status.ended is not None
    assert status.best is not None
    *others, last = lab.backend.requests
    assert (last.repeat, last.baselines, last.kernelbench) == (FULL_REPEAT, True, True)
    assert not any(request.baselines for request in others)
    assert {request.kernelbench for request in others} == {each}
    (full,) = (event for event in events(made) if isinstance(event, Evaluated) and event.is_full)
    assert full.candidate == status.best.candidate


async def test_a_winner_whose_baselines_do_not_fit_ends_the_search_all_the_same(tmp_path: Path) -> None:
    made = spec(tmp_path)
    lab = Lab(tmp_path, (made,), NumberedProposer())
    lab.backend.outcome, lab.backend.has_no_room = WORKING, True
    await lab.run()
    (status,) = (await lab.coordinator.status()).searches
    await lab.close()
    assert (status.failure, status.ended is None) == (None, False)
    assert events(made)[-1] == FullForgone(
        candidate=status.best.candidate, reason="judging task t needs 90 GiB of host memory"
    )


class SlowEmbedder(LocalEmbedder):
    """A service that answers once it is allowed to."""

    waits = True

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.may_answer = threading.Event()

    def embed(self, sources: Sequence[str]) -> NDArray[np.float32]:
        self.asked.set()
        if not self.may_answer.wait(20.0):
            raise InfraError("the coordinator was waiting for this answer")
        return super().embed(sources)


async def test_a_slow_embedding_does_not_keep_the_coordinator_from_answering(tmp_path: Path) -> None:
    made = replace(spec(tmp_path), settings=SearchSettings(algorithm="PS_epsNet", num_steps=2, seed=7))
    lab, embedder = Lab(tmp_path, (made,), NumberedProposer()), SlowEmbedder()
    lab.factories = replace(lab.factories, embedder=lambda _: embedder)
    await lab.coordinator.stop("for another embedder", end=False)
    lab.coordinator = Coordinator(
        (made,),
        lab.factories,
        lab.queue.evaluate,
        lab.queue.status,
        lab.queue.take_rent,
        parallel_searches=1,
    )
    running = asyncio.create_task(lab.run())
    await asyncio.to_thread(embedder.asked.wait, 20.0)
    (status,) = (await lab.coordinator.status()).searches
    assert status.failure is None
    assert status.progress.in_flight > 0
    embedder.may_answer.set()
    await running
    (status,) = (await lab.coordinator.status()).searches
    await lab.close()
    assert status.failure is None
    assert status.progress.proposals == 10


async def test_a_declined_brief_counts_as_a_proposal(tmp_path: Path) -> None:
    made = spec(tmp_path)
    lab = Lab(tmp_path, (made,), NumberedProposer(declines=4))
    await lab.run()
    await lab.close()
    declined = [event for event in events(made) if isinstance(event, ProposalFailed)]
    assert len(declined) == 5
    assert len(evaluated(made)) == 15


async def test_after_a_crash_nothing_is_lost_and_nothing_is_measured_twice(tmp_path: Path) -> None:
    made = spec(tmp_path, steps=8)
    sources: list[str] = []
    for _ in range(200):
        lab = Lab(tmp_path, (made,), NumberedProposer())
        run = asyncio.create_task(lab.run())
        done, _ = await asyncio.wait({run}, timeout=0.03)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await lab.close()
        sources += itertools.chain.from_iterable(lab.backend.batches)
        if done:
            break
    assert len(evaluated(made)) == 40
    assert set(evaluated(made).values()) == {1}
    asked = [event.brief for event in events(made) if isinstance(event, Asked)]
    assert asked == [f"c{number:06d}" for number in range(1, 41)]
    proposed = [event.candidate.id for event in events(made) if isinstance(event, Proposed)]
    assert sorted(proposed) == asked


async def test_a_search_that_goes_on_asks_for_nothing_before_it_has_read_what_it_left(tmp_path: Path) -> None:
    made = spec(tmp_path)
    proposer = NumberedProposer()
    lab = Lab(tmp_path, (made,), proposer)
    lab.backend.service_s = 60.0
    for index in range(3):
        lease = await lab.coordinator.lease(index, f"explorer {index}")
        assert isinstance(lease, Lease)
        assert isinstance(lease.work, Brief)
        answer = await proposer.propose(lease.work)
        assert isinstance(answer, Candidate)
        await lab.coordinator.submit("one", answer)
    await lab.close()
    again = Lab(tmp_path, (made,), proposer)
    await again.run()
    await again.close()
    kinds = [type(event) for event in events(made) if isinstance(event, Opened | Asked | Evaluated)]
    assert kinds[:8] == [Opened, Asked, Asked, Asked, Opened, Evaluated, Evaluated, Evaluated]
    assert len(evaluated(made)) == 20


async def test_a_new_incarnation_of_an_explorer_gets_what_the_old_one_held(tmp_path: Path) -> None:
    made = spec(tmp_path)
    lab = Lab(tmp_path, (made,), NumberedProposer())
    held = await lab.coordinator.lease(0, "first life")
    assert isinstance(held, Lease)
    other = await lab.coordinator.lease(1, "another explorer")
    assert isinstance(other, Lease)
    assert other.work != held.work
    assert await lab.coordinator.lease(0, "second life") == held
    await lab.close()


async def test_an_explorer_that_is_cancelled_as_news_come_stays_cancelled(tmp_path: Path) -> None:
    lab = Lab(tmp_path, (spec(tmp_path),), NumberedProposer())
    held = []
    while True:
        waiting = asyncio.create_task(lab.coordinator.lease(0, "explorer"))
        done, _ = await asyncio.wait({waiting}, timeout=0.1)
        if not done:
            break
        held.append(waiting.result())
    assert isinstance(held[0], Lease)
    answer = await NumberedProposer().propose(held[0].work)
    assert isinstance(answer, Candidate)
    await lab.coordinator.submit("one", answer)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await lab.close()


async def test_lost_batches_are_journalled_and_do_not_change_the_result(tmp_path: Path) -> None:
    made = spec(tmp_path)
    lab = Lab(tmp_path, (made,), NumberedProposer())
    lab.backend.faults = [InfraError("container lost")]
    await lab.run()
    await lab.close()
    lost = [event for event in events(made) if isinstance(event, InfraFailed)]
    assert {event.reason for event in lost} == {"container lost"}
    assert len(evaluated(made)) == 20


async def test_the_whole_rent_is_journalled_and_stops_the_search_that_may_spend_less(tmp_path: Path) -> None:
    rich, poor = spec(tmp_path, "rich"), spec(tmp_path, "poor", budget=Budget(usd=0.25))
    lab = Lab(tmp_path, (rich, poor), NumberedProposer())
    lab.backend.usd_per_batch = 0.125
    await lab.run()
    told = (await lab.coordinator.status()).searches[1].progress.usd
    lab.backend.batches.append([])  # something that the backend was held for and nobody got an answer to
    await lab.close()
    paid_rich, paid_poor = (
        sum(event.rent.usd for event in events(made) if isinstance(event, Rented)) for made in (rich, poor)
    )
    assert paid_rich + paid_poor == pytest.approx(0.125 * len(lab.backend.batches))
    assert paid_poor - told in (pytest.approx(0.0), pytest.approx(0.125))
    assert len(evaluated(rich)) == 20
    assert len(evaluated(poor)) < 20
    assert [event.reason[:5] for event in events(poor) if isinstance(event, Ended)] == ["spent"]


async def test_a_search_that_got_no_answer_pays_for_the_device_all_the_same(tmp_path: Path) -> None:
    made = spec(tmp_path)
    lab = Lab(tmp_path, (made,), NumberedProposer())
    lab.backend.usd_per_batch = 0.125
    lab.backend.faults = [InfraError("container lost")] * 1000
    await lab.run()
    await lab.close()
    (rented,) = [event for event in events(made) if isinstance(event, Rented)]
    assert rented.rent.usd == pytest.approx(0.125 * len(lab.backend.batches))
    assert len(evaluated(made)) == 0


async def test_a_boot_is_cold_only_if_it_was_started_for_the_run(tmp_path: Path) -> None:
    for name, cold_boots in (("cold", ("b",)), ("warm", ("another lane's",))):
        made = spec(tmp_path, name)
        lab = Lab(tmp_path / name, (made,), NumberedProposer())
        lab.backend.cold_boots = cold_boots
        await lab.run()
        await lab.close()
        started = [event.cold for event in events(made) if isinstance(event, BackendStarted)]
        assert started == [name == "cold"]


@pytest.mark.parametrize(
    ("error", "kind"), [(InfraError("all models are down"), "infra"), (UserError("no such prompt"), "user")]
)
async def test_a_proposer_that_gives_up_ends_the_search_with_its_message(
    tmp_path: Path, error: Exception, kind: str
) -> None:
    made = spec(tmp_path)
    lab = Lab(tmp_path, (made,), NumberedProposer(error=error))
    await lab.run()
    status = await lab.coordinator.status()
    assert status.finished
    failure = status.searches[0].failure
    assert failure is not None
    assert (failure.kind, failure.message) == (kind, str(error))
    await lab.close()


async def test_a_search_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    good, bad = spec(tmp_path, "good"), spec(tmp_path, "bad")
    lab = Lab(tmp_path, (good, bad), NumberedProposer())
    await lab.coordinator.gave_up("bad", Failure(kind="user", message="unscorable"))
    await lab.run()
    await lab.close()
    assert len(evaluated(good)) == 20
    assert len(evaluated(bad)) == 0


async def test_a_finished_coordinator_sends_explorers_home(tmp_path: Path) -> None:
    lab = Lab(tmp_path, (spec(tmp_path),), NumberedProposer())
    await lab.run()
    assert await lab.coordinator.lease(0, "again") == Idle(finished=True)
    await lab.close()


async def test_an_explorer_leaves_a_silent_coordinator(tmp_path: Path) -> None:
    class Silent(Coordinator):
        async def lease(self, index: int, incarnation: str) -> Lease | Idle:
            await asyncio.sleep(3600)
            raise AssertionError("not reached")

    lab = Lab(tmp_path, (), NumberedProposer())
    queue = lab.queue
    silent = Silent((), lab.factories, queue.evaluate, queue.status, queue.take_rent, parallel_searches=1)
    explorer = Explorer(0, silent, {}, lab.factories, 2, silence_s=0.05)
    with pytest.raises(ExceptionGroup) as caught:
        await explorer.run()
    assert all(isinstance(error, TimeoutError) for error in caught.value.exceptions)
    await lab.close()


def test_explorers_pause_while_enough_is_in_flight(tmp_path: Path) -> None:
    running = RunningSearch(spec(tmp_path), factories(NumberedProposer()))
    briefs = [running.lease("e") for _ in range(20)]
    limit = running.pacing.limit
    assert [brief is not None for brief in briefs] == [True] * limit + [False] * (20 - limit)
    running.search.fail(briefs[0].id, NoProposal(reason=""))
    assert running.lease("e") is not None
    assert running.lease("e") is None
    running.journal.close()


def test_a_device_that_runs_dry_never_lifts_a_search_above_its_own_limit(tmp_path: Path) -> None:
    made = spec(tmp_path, steps=40)
    made = replace(made, settings=replace(made.settings, max_in_flight=3))
    running = RunningSearch(made, factories(NumberedProposer()))
    assert [running.lease("e") is not None for _ in range(20)] == [True] * 3 + [False] * 17
    for _ in range(20):
        running.pacing.observe(in_flight=3, waiting=0, dry=True)
    assert running.lease("e") is None
    running.journal.close()


def test_time_between_sessions_is_not_the_searchs_time() -> None:
    times = [(100.0, Opened(session=1)), (103.0, None), (500.0, Opened(session=2)), (501.5, None)]
    failed = InfraFailed(what="w", reason="r", attempt=1)
    entries = [Entry(number=n, time=t, event=e or failed) for n, (t, e) in enumerate(times, start=1)]
    assert active_s(entries) == 4.5


async def test_a_summary_of_an_explorer_that_died_is_asked_for_again(tmp_path: Path) -> None:
    made = replace(spec(tmp_path), settings=SearchSettings(algorithm="PS_Summarizer", num_steps=4))
    lab = Lab(tmp_path, (made,), NumberedProposer())
    due = None
    while due is None:
        lease = await lab.coordinator.lease(0, "first life")
        assert isinstance(lease, Lease)
        if isinstance(lease.work, Brief):
            answer = await lab.factories.proposer(made, SearchAttempts(lab.coordinator, made)).propose(
                lease.work
            )
            assert isinstance(answer, Candidate)
            await lab.coordinator.submit("one", answer)
            await asyncio.sleep(0.02)
        else:
            due = lease
    assert await lab.coordinator.lease(0, "second life") == due
    await lab.coordinator.summarized("one", "tile more", ())
    await lab.coordinator.summarized("one", "a late duplicate", ())
    summaries = [event.text for event in events(made) if isinstance(event, Summarized)]
    assert summaries == ["tile more"]
    await lab.close()


@pytest.mark.parametrize("synchronous", [False, True])
async def test_all_four_algorithms_run_to_their_end(tmp_path: Path, synchronous: bool) -> None:
    names = get_args(Algorithm)[:4]
    specs = tuple(
        replace(
            spec(tmp_path, name),
            settings=SearchSettings(
                algorithm=name, num_steps=2, num_candidates=3, synchronous=synchronous, epsilon=0.0
            ),
        )
        for name in names
    )
    lab = Lab(tmp_path, specs, NumberedProposer())
    await lab.run()
    status = await lab.coordinator.status()
    assert [search.ended for search in status.searches] == ["all 6 proposals were asked for"] * 4
    await lab.close()


async def test_a_lease_that_an_explorer_waited_for_when_it_died_is_not_granted(tmp_path: Path) -> None:
    lab = Lab(tmp_path, (spec(tmp_path, steps=1),), NumberedProposer())
    for other in range(1, 6):
        assert isinstance(await lab.coordinator.lease(other, f"holds brief {other}"), Lease)
    waiting = asyncio.create_task(lab.coordinator.lease(0, "first life"))
    await asyncio.sleep(0.01)
    revived = asyncio.create_task(lab.coordinator.lease(0, "second life"))
    assert await waiting == Idle(finished=True)
    assert await lab.coordinator.lease(0, "first life") == Idle(finished=True)
    revived.cancel()
    await lab.close()


async def test_a_full_disk_ends_a_search_with_the_reason_and_room_lets_it_go_on(tmp_path: Path) -> None:
    full, other = spec(tmp_path, "full"), spec(tmp_path, "other")
    lab = Lab(tmp_path, (full, other), NumberedProposer())
    journal = lab.coordinator._searches["full"].journal  # SQLite's own limit fails as a full disk does
    (pages,) = journal._connection.execute("pragma page_count").fetchone()
    journal._connection.execute(f"pragma max_page_count = {pages + 2}")
    await lab.run()
    failed, well = (await lab.coordinator.status()).searches
    assert failed.failure is not None
    assert failed.failure.kind == "infra"
    assert "disk is full" in failed.failure.message
    assert well.ended == "all 20 proposals were asked for"
    assert 0 < len(evaluated(full)) < 20
    await lab.close()
    room = Lab(tmp_path, (full, other), NumberedProposer())
    await room.run()
    await room.close()
    assert len(evaluated(full)) == 20
    assert set(evaluated(full).values()) == {1}


async def test_a_fault_of_one_searchs_proposer_leaves_the_explorer_to_the_others(tmp_path: Path) -> None:
    good, bad = spec(tmp_path, "good"), spec(tmp_path, "bad")
    lab = Lab(tmp_path, (good, bad), NumberedProposer())
    broken = NumberedProposer(error=ZeroDivisionError("a fault"))
    lab.factories = replace(
        lab.factories, proposer=lambda s, _: broken if s.name == "bad" else NumberedProposer()
    )
    await lab.run()
    ended, failed = (await lab.coordinator.status()).searches
    assert ended.ended == "all 20 proposals were asked for"
    assert failed.failure is not None
    assert failed.failure.message == (
        "the proposer failed: ZeroDivisionError: a fault. Its traceback is in the run's report, under the "
        "failures."
    )
    await lab.close()
    (journalled,) = [event for event in events(bad) if isinstance(event, InfraFailed)]
    assert journalled.reason.startswith("Traceback (most recent call last):")


@pytest.mark.parametrize("where", ["evaluate", "propose", "ask", "take_ready"])
async def test_an_unforeseen_exception_anywhere_ends_its_search_alone(tmp_path: Path, where: str) -> None:
    good, bad = spec(tmp_path, "good"), spec(tmp_path, "bad")
    lab = Lab(tmp_path, (good, bad), NumberedProposer())

    def fault(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("nobody foresaw this")

    if where == "evaluate":
        sound = lab.queue.evaluate

        async def evaluate(search: str, request: EvalRequest, scope: str) -> Answer:
            return fault() if search == "bad" else await sound(search, request, scope)

        lab.coordinator._evaluate = evaluate
    else:
        setattr(lab.coordinator._searches["bad"].search, where, fault)
    await lab.run()
    ended, failed = (await lab.coordinator.status()).searches
    assert ended.ended == "all 20 proposals were asked for"
    assert failed.failure is not None
    assert failed.failure.kind == "infra"
    assert failed.failure.message.startswith("the search failed: RuntimeError: nobody foresaw this.")
    await lab.close()
    assert [event.what for event in events(bad) if isinstance(event, InfraFailed)] == ["search"]


async def test_a_search_at_its_target_ends_early_and_the_others_go_on(tmp_path: Path) -> None:
    reached = replace(spec(tmp_path, "reached"), settings=SearchSettings(num_steps=4, target_speedup=1.5))
    other = spec(tmp_path, "other")
    lab = Lab(tmp_path, (reached, other), NumberedProposer())
    lab.backend.outcome = Measured(
        kernel_ms=(1.0,) * 5,
        reference_ms=(2.0,) * 5,
        speedup=2.0,
        speedup_ci=(1.9, 2.1),
        native_ms=1.0,
        wall_ms=1.0,
        audit=Audit(custom_kernel=True),
    )
    await lab.run()
    first, second = (await lab.coordinator.status()).searches
    assert first.ended == "the best kernel is more than 1.5 times as fast as the reference"
    assert first.progress.evaluations < 20
    assert second.ended == "all 20 proposals were asked for"
    await lab.close()


async def test_searches_that_share_a_budget_use_all_of_it_and_a_resume_goes_on(tmp_path: Path) -> None:
    """What a search that is over has left is used by the others, and no evaluation is one too many."""
    budget = Budget(evaluations=10, grows=True)
    specs = tuple(
        replace(
            spec(tmp_path, name),
            settings=SearchSettings(num_steps=60, num_candidates=1, budget=budget, remeasure_share=0.0),
        )
        for name in ("one", "two", "three", "four")
    )
    done = replace(specs[0], settings=replace(specs[0].settings, num_steps=4))
    specs = (done, *specs[1:])
    lab = Lab(tmp_path, specs, NumberedProposer())
    lab.coordinator._shared = Shared(evaluations=80)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        explorer = group.create_task(lab.explorer(0).run())
        while (await lab.coordinator.status()).searches[1].progress.evaluations < 10:
            await asyncio.sleep(0.005)
        explorer.cancel()
    await lab.close()

    again = Lab(tmp_path, specs, NumberedProposer())
    again.coordinator._shared = Shared(evaluations=80)
    await again.run()
    ended = (await again.coordinator.status()).searches
    assert ended[0].ended == "all 4 proposals were asked for"
    assert {search.ended for search in ended[1:]} <= {"the sweep's 80 evaluations are used", OUTBID}
    assert sum(search.progress.evaluations for search in ended) == 80
    granted = [
        sum(event.evaluations for event in events(made) if isinstance(event, Granted)) for made in specs
    ]
    assert granted[0] == 0
    assert sum(granted) == 80 - 4 - 30
    await again.close()


async def test_a_search_ends_when_the_others_will_gain_more_with_all_that_is_left(tmp_path: Path) -> None:
    """No kernel works here, so that the gain expected of a search is one over its evaluations."""

    def having(name: str, evaluations: int) -> SearchSpec:
        budget = Budget(evaluations=evaluations, grows=True)
        settings = SearchSettings(num_steps=60, num_candidates=1, budget=budget, remeasure_share=0.0)
        return replace(spec(tmp_path, name), settings=settings)

    specs = (having("long", 30), having("two", 5), having("three", 5))
    lab = Lab(tmp_path, specs, NumberedProposer())
    lab.coordinator._shared = Shared(evaluations=70)
    await lab.run()
    long, *others = (await lab.coordinator.status()).searches
    assert (long.ended, long.progress.evaluations) == (OUTBID, 30)
    assert sum(search.progress.evaluations for search in others) == 40
    await lab.close()


async def test_dollars_that_a_search_leaves_are_spent_by_the_others(tmp_path: Path) -> None:
    """Each proposal costs a sixteenth of a dollar. Of four dollars one search spends a quarter."""

    class PaidProposer(NumberedProposer):
        async def propose(self, brief: Brief) -> Candidate | NoProposal:
            usage = Usage(model="m", prompt_tokens=1, usd=0.0625)
            return replace(await super().propose(brief), usage=(usage,))

    budget = Budget(usd=1.0, grows=True)
    settings = SearchSettings(num_steps=400, num_candidates=1, budget=budget, remeasure_share=0.0)
    done, other = (replace(spec(tmp_path, name), settings=settings) for name in ("done", "other"))
    done = replace(done, settings=replace(settings, num_steps=4))
    lab = Lab(tmp_path, (done, other), PaidProposer())
    lab.coordinator._shared = Shared(usd=4.0)
    await lab.run()
    first, second = (await lab.coordinator.status()).searches
    assert (first.progress.usd, first.ended) == (0.25, "all 4 proposals were asked for")
    held_by_explorers = 6 * 0.0625
    assert 3.75 <= second.progress.usd <= 3.75 + held_by_explorers
    assert second.ended == "the sweep's 4.00 dollars are used"
    grants = [event for event in events(other) if isinstance(event, Granted)]
    assert {event.evaluations for event in grants} == {0}
    assert 0.0 < max(event.usd for event in grants) <= 0.625 + held_by_explorers
    assert [event for event in events(done) if isinstance(event, Granted)] == []
    await lab.close()


async def test_first_briefs_follow_what_limits_the_task(tmp_path: Path) -> None:
    """The reference is profiled before the first brief is written, and a search without profiles goes on."""
    strategies = tuple(KernelStrategy(name=one, text=one, fits=(one,)) for one in get_args(Bound)[::-1])
    settings = SearchSettings(num_steps=1, num_candidates=3, strategies=strategies)
    profiled = replace(spec(tmp_path, "profiled"), settings=settings, evidence=True)
    other = replace(spec(tmp_path, "other"), settings=settings)
    lab = Lab(tmp_path, (profiled, other), NumberedProposer())
    asked: list[str] = []

    async def profile_of(request: ProfileRequest) -> Profiled:
        asked.append(request.source)
        await asyncio.sleep(0.01)
        return profile(40.0)

    lab.coordinator._evidence = Evidence(profile_of)
    await lab.run()
    assert asked == [profiled.task.equal_code]
    first = [event for event in events(profiled) if isinstance(event, TaskProfiled | Asked)]
    assert first[0] == TaskProfiled(bounds=("memory",))
    assert next(event.strategy for event in first[1:] if isinstance(event, Asked)) == "memory"
    assert [event for event in events(other) if isinstance(event, TaskProfiled)] == [TaskProfiled(bounds=())]
    assert all(search.ended for search in (await lab.coordinator.status()).searches)
    await lab.close()


async def test_no_more_than_the_given_number_of_searches_runs_at_once(tmp_path: Path) -> None:
    specs = tuple(spec(tmp_path, name, steps=1) for name in ("one", "two", "three"))
    lab = Lab(tmp_path, specs, NumberedProposer())
    lab.coordinator._parallel_searches = 2
    leases = [await lab.coordinator.lease(index, f"explorer {index}") for index in range(10)]
    assert {lease.search for lease in leases if isinstance(lease, Lease)} == {"one", "two"}
    await lab.close()


async def test_a_search_that_is_over_keeps_only_its_status(tmp_path: Path) -> None:
    lab = Lab(tmp_path, (spec(tmp_path, "one"), spec(tmp_path, "two", steps=8)), NumberedProposer())
    await lab.run()
    assert not hasattr(lab.coordinator._searches["one"], "search")
    assert [s.progress.proposals for s in (await lab.coordinator.status()).searches] == [20, 40]
    await lab.close()


async def test_two_drivers_may_stop_a_sweep(tmp_path: Path) -> None:
    made = spec(tmp_path)
    lab = Lab(tmp_path, (made,), NumberedProposer())
    await lab.coordinator.stop("the first", end=False)
    await lab.coordinator.stop("the second", end=False)
    SqliteJournal(made.journal).close()
    await lab.queue.close()


async def test_a_device_that_runs_dry_lets_every_search_run_further_ahead(tmp_path: Path) -> None:
    lab = Lab(
        tmp_path, (spec(tmp_path, "one", steps=40), spec(tmp_path, "two", steps=40)), NumberedProposer()
    )
    searches = list(lab.coordinator._searches.values())
    limit = searches[0].pacing.limit
    for running in searches:
        while running.lease("explorer") is not None:
            pass
    for _ in range(limit):
        lab.coordinator._pace.observe(searches[0], 0, lab.coordinator._in_turn)
        lab.coordinator._pace.observe(searches[0], 1, lab.coordinator._in_turn)
    assert [running.pacing.limit > limit for running in searches] == [True, True]
    await lab.close()


async def test_an_attempt_hears_of_the_stop_and_is_the_same_attempt_after_it(tmp_path: Path) -> None:
    lab = Lab(tmp_path, (spec(tmp_path),), NumberedProposer())
    lab.backend.service_s = 60.0
    lease = await lab.coordinator.lease(0, "first life")
    assert isinstance(lease, Lease)
    attempts = SearchAttempts(lab.coordinator, lab.specs["one"])
    waiting = asyncio.create_task(attempts.judge(lease.work.id, "a kernel", proposer="agent:x", note=""))
    while not lab.backend.requests:
        await asyncio.sleep(0.01)
    assert await attempts.earlier(lease.work.id) == ()
    await lab.close()
    with pytest.raises(InfraError, match="the search was stopped: closed"):
        await waiting
    second = Lab(tmp_path, (spec(tmp_path),), NumberedProposer())
    again = SearchAttempts(second.coordinator, second.specs["one"])
    answer = await again.judge(lease.work.id, "a kernel", proposer="agent:x", note="")
    assert isinstance(answer, Attempt)
    assert [trial.candidate.id for trial in await again.earlier(lease.work.id)] == ["c000001-1"]
    assert sum(isinstance(event, Attempted) for event in events(spec(tmp_path))) == 1
    await second.close()
