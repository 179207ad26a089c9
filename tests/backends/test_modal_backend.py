"""The Modal backend over the loopback control plane: an unmodified SDK, real containers, real evaluations."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets

import pytest

from kbopt.backends.modal_client import ModalBackend, container_status, stop
from kbopt.cluster.evaluator import EvaluationQueue
from kbopt.core.errors import InfraError, UserError
from kbopt.core.outcomes import Crashed, Measured, Rejected, TimedOut, WrongAnswer
from kbopt.store.cache import EvaluationCache
from tests.support.quick_task import HANGS, KILLS_ITS_GROUP, PROTOCOL, good, request, slow, wrong

SHORT = dataclasses.replace(PROTOCOL, timeout_s=2.0)
LONG = dataclasses.replace(PROTOCOL, timeout_s=60.0)

DRIVER = """
import asyncio, json
from kbopt.backends.modal_client import ModalBackend
from tests.support.quick_task import request, wrong


async def main():
    backend = ModalBackend("L40S", owner={owner!r}, poll_s=0.1)
    status = await backend.open()
    print(json.dumps({{"boot": status.boot, "cold_starts": status.cold_starts}}), flush=True)
    await backend.evaluate([request(wrong({name!r}))])


asyncio.run(main())
"""


@pytest.fixture
async def queue_over(tmp_path):
    """Makes the evaluator's queue over a backend; it tries lost batches again at once."""
    caches = []

    def make(backend: ModalBackend) -> EvaluationQueue:
        caches.append(EvaluationCache(tmp_path / f"cache{len(caches)}.sqlite"))
        return EvaluationQueue(backend, caches[-1], retry_delays_s=(0.0, 0.1, 0.5))

    yield make
    for cache in caches:
        cache.close()


async def eventually(predicate, timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not predicate():
            await asyncio.sleep(0.05)


async def test_a_gpu_that_becomes_free_in_time_serves_many_concurrent_batches_in_one_container(plane, opened):
    before = plane.counters()
    plane.set(unavailable_gpus=["L4"])
    asyncio.get_running_loop().call_later(1.0, lambda: plane.set(unavailable_gpus=[]))
    async with opened("L4") as backend:
        sources = [wrong(f"concurrent {number}") for number in range(6)]
        batches = await asyncio.gather(*(backend.evaluate([request(source)]) for source in sources))
        status = await backend.status()
    results = [result for batch in batches for result in batch]
    assert all(isinstance(result.outcome, WrongAnswer) for result in results)
    assert {result.boot for result in results} == {status.boot}
    assert (status.state, status.cold_starts) == ("warm", 1)
    assert plane.counters()["cold_starts"] == before["cold_starts"] + 1


async def test_a_good_kernel_is_found_correct_by_the_same_evaluator_as_locally(opened):
    async with opened() as backend:
        asked = dataclasses.replace(request(good("correct in the container")), kernelbench=True)
        (result,) = await backend.evaluate([asked])
    # Whether its time can be believed depends on how busy this machine is.
    assert isinstance(result.outcome, Measured | Rejected)
    assert result.kernelbench is not None
    assert result.kernelbench.correctness


async def test_an_answer_says_what_becomes_of_the_containers_other_requests(opened):
    async with opened() as backend:
        slow_one = asyncio.create_task(backend.evaluate([request(HANGS, protocol=LONG)]))
        seen: set[str] = set()
        while not seen:
            assert not slow_one.done()
            await backend.evaluate([request(f"{secrets.token_hex(4)} is no Python")])
            seen = set((await backend.status()).phases)
        slow_one.cancel()
        await asyncio.gather(slow_one, return_exceptions=True)
        assert (await backend.status()).phases == {}
    assert seen <= {"checking", "building", "admitting", "waiting"}


async def test_another_driver_finds_the_warm_container_and_counts_no_cold_start(plane, opened, driver):
    async with opened() as backend:
        here = await backend.status()
    other = driver(DRIVER.format(owner="", name="another driver"))
    there = json.loads(await asyncio.to_thread(other.stdout.readline))
    assert there == {"boot": here.boot, "cold_starts": 0}


async def test_a_batch_beyond_the_inline_limit_travels_in_pages(plane, opened):
    long_comment = f"# {secrets.token_hex(30_000)}"  # does not compress below five pages
    async with opened() as backend:
        before = plane.counters()["calls"]
        results = await backend.evaluate([request(wrong(long_comment)), request(wrong("short"))])
    assert all(isinstance(result.outcome, WrongAnswer) for result in results)
    counters = plane.counters()
    assert counters["calls"] - before >= 5
    assert not [name for name in counters["rpcs"] if "Blob" in name]


async def test_no_free_gpu_is_said_while_waiting_and_given_up_after_the_start_timeout(plane):
    plane.set(unavailable_gpus=["H200"])
    backend = ModalBackend("H200", poll_s=0.05, start_timeout_s=1.5)
    before = plane.counters()["cancels"]
    opening = asyncio.create_task(backend.open())
    while (await backend.status()).state != "waiting":
        await asyncio.sleep(0.02)
    assert "no H200 container for" in (await backend.status()).detail
    assert "Other GPUs to try: B200, H100, RTX-PRO-6000." in (await backend.status()).detail
    with pytest.raises(InfraError, match=r"Gave up after --start-timeout 1\.5 s"):
        await opening
    assert plane.counters()["cancels"] == before + 1  # nothing is left behind that would start a GPU later
    await backend.close()


async def test_a_batch_survives_the_death_of_its_container(plane, opened):
    async with opened("A100") as backend:
        before = await backend.status()
        batch = asyncio.create_task(
            backend.evaluate([request(HANGS, protocol=SHORT), request(wrong("survives"))])
        )
        await asyncio.sleep(1.0)
        assert plane.kill_containers("A100") == 1
        hung, other = await batch
        status = await backend.status()
    assert isinstance(hung.outcome, TimedOut)
    assert isinstance(other.outcome, WrongAnswer)
    assert other.boot == status.boot != before.boot
    assert status.cold_starts == before.cold_starts + 1
    assert status.detail.startswith(f"it replaced container {before.boot}; isolated ")


async def test_hostile_candidates_neither_stop_the_container_nor_the_next_candidate(plane, opened):
    async with opened() as backend:
        boot = (await backend.status()).boot
        hung, killed = await backend.evaluate([request(HANGS, protocol=SHORT), request(KILLS_ITS_GROUP)])
        (after,) = await backend.evaluate([request(wrong("after the hostile ones"))])
    assert isinstance(hung.outcome, TimedOut)
    assert isinstance(killed.outcome, Crashed)
    assert isinstance(after.outcome, WrongAnswer)
    assert {hung.boot, killed.boot, after.boot} == {boot}


async def test_a_service_that_does_not_start_is_explained_and_never_scored(plane, opened):
    stop("A100")
    plane.set(container_env={"KBOPT_MODAL_DEVICE": "cuda"})
    backend = ModalBackend("A100", poll_s=0.1, start_timeout_s=60.0)
    with pytest.raises(InfraError, match="on A100: it has no usable GPU"):
        await backend.open()
    assert (await backend.status()).state == "failed"
    plane.set(container_env={"KBOPT_MODAL_DEVICE": "cpu"})
    assert (await backend.open()).state == "warm"  # the failed container has left, a new one has come
    await backend.close()


async def test_a_container_that_dies_at_its_start_is_given_up_after_the_start_timeout(plane):
    plane.set(crash_at_start=True)
    backend = ModalBackend("A10", poll_s=0.05, start_timeout_s=1.5)
    with pytest.raises(InfraError, match="it fails at its start"):
        await backend.open()
    await backend.close()
    assert plane.counters()["cold_starts"] > 1  # Modal itself retries for ever


async def test_an_app_that_somebody_stopped_is_deployed_again_and_its_batch_retried(
    plane, opened, queue_over
):
    async with opened(warm_minutes=5) as backend:
        queue = queue_over(backend)
        source = slow("stopped").replace("sleep(0.4)", "sleep(5)")  # longer than to stop the app takes
        answer = asyncio.create_task(queue.evaluate("search", request(source, protocol=LONG)))
        async with asyncio.timeout(30):
            while container_status("L40S", warm_minutes=5).info.num_evaluations == 0:
                await asyncio.sleep(0.05)
        await asyncio.to_thread(stop, warm_minutes=5)
        seen = []
        while not answer.done():
            seen.append(await backend.status())
            await asyncio.sleep(0.02)
        answered = await answer
        assert {status.state for status in seen} >= {"building", "warm"}
        assert any("building the image: " in status.detail for status in seen)
        assert isinstance(answered.result.outcome, WrongAnswer)
        assert [failure.reason.partition(": ")[2] for failure in answered.failures] == [
            "RemoteError: GENERIC_STATUS_TERMINATED: App was stopped"
        ]
        assert (await backend.status()).cold_starts == 2
    stop(warm_minutes=5)


async def test_a_result_that_modal_dropped_is_answered_again_and_not_measured_again(
    plane, opened, queue_over
):
    async with opened(owner="unlucky") as backend:
        evaluations = container_status("L40S").info.num_evaluations
        plane.set(expire_outputs=1)
        answered = await queue_over(backend).evaluate("search", request(wrong("expires")))
    assert isinstance(answered.result.outcome, WrongAnswer)
    assert ["dropped the result" in failure.reason for failure in answered.failures] == [True]
    assert container_status("L40S").info.num_evaluations == evaluations + 1


async def test_a_driver_that_comes_back_joins_what_it_left_running(plane, opened, driver):
    async with opened() as backend:  # warm, so that the driver's batch runs when it is killed
        evaluations = container_status("L40S").info.num_evaluations
        killed = driver(DRIVER.format(owner="phoenix", name="left running"))
        await asyncio.to_thread(killed.stdout.readline)
        await eventually(lambda: container_status("L40S").info.num_evaluations == evaluations + 1)
        killed.kill()
    async with opened(owner="phoenix") as backend:
        (result,) = await backend.evaluate([request(wrong("left running"))])
    assert isinstance(result.outcome, WrongAnswer)
    assert container_status("L40S").info.num_evaluations == evaluations + 1


async def test_two_owners_get_measurements_of_their_own(plane, opened):
    same = request(wrong("measured twice"))
    async with opened(owner="one") as one, opened(owner="two") as two:
        before = container_status("L40S").info.num_evaluations
        (first,), (second,) = await asyncio.gather(one.evaluate([same]), two.evaluate([same]))
    assert isinstance(first.outcome, WrongAnswer)
    assert isinstance(second.outcome, WrongAnswer)
    assert container_status("L40S").info.num_evaluations == before + 2


async def test_two_gpus_are_two_containers_behind_one_backend(plane, opened):
    async with opened("T4", gpus=2) as backend:
        assert backend.max_in_flight == 32
        async with asyncio.timeout(30):
            while ", " not in (await backend.status()).boot:
                await asyncio.sleep(0.05)
        sources = [wrong(f"two gpus {number}") for number in range(4)]
        batches = await asyncio.gather(*(backend.evaluate([request(source)]) for source in sources))
        status = await backend.status()
    assert len({result.boot for batch in batches for result in batch}) == 2
    assert status.cold_starts == 2
    for lane in ("shared", "shared-2"):
        assert stop("T4", lane=lane)


async def test_rent_counts_container_time_until_the_backend_is_closed(plane, opened):
    async with opened() as backend:
        await backend.evaluate([request(wrong("rented"))])
        first = (await backend.status()).rent
        await asyncio.sleep(0.2)
        assert (await backend.status()).rent.seconds >= first.seconds + 0.2
        idle_usd = (await backend.status()).idle_usd
    closed = (await backend.status()).rent
    assert closed.gpu == "L40S"
    # 0.000542 for the GPU, 8 cores at 0.0000131 and 32 GiB at 0.00000222 US dollars per second
    assert closed.usd == pytest.approx(closed.seconds * 0.00071784)
    assert idle_usd == pytest.approx(600 * 0.00071784)
    await asyncio.sleep(0.05)
    assert (await backend.status()).rent == closed


async def test_a_driver_pays_from_its_own_first_call_also_when_it_comes_back(plane, opened):
    async with opened(owner="comes back") as backend:
        assert (await backend.status()).age_s > 1.0  # others used this container before
        assert (await backend.status()).rent.seconds < 1.0
    async with opened(owner="comes back") as backend:
        assert (await backend.status()).rent.seconds < 1.0


async def test_an_unused_container_leaves_after_its_warm_time_and_costs_no_more(plane, opened):
    async with opened("B200", lane="short", warm_minutes=2 / 60) as backend:
        first = await backend.status()
        started = (await backend.status()).rent.seconds
        await eventually(lambda: plane.counters()["alive_by_gpu"].get("B200", 0) == 0)
        await asyncio.sleep(0.3)
        held_s = (await backend.status()).rent.seconds
        assert held_s - started == pytest.approx(2.0, abs=0.3)
        await backend.evaluate([request(wrong("later"))])
        second = await backend.status()
    assert second.cold_boots == (first.boot, second.boot)
    assert second.detail.startswith(f"it replaced container {first.boot}; isolated ")
    stop(warm_minutes=2 / 60)


async def test_a_closed_backend_says_so_and_leaves_the_container_warm(plane, opened):
    async with opened() as backend:
        boot = (await backend.status()).boot
    assert (await backend.status()).state == "closed"
    with pytest.raises(UserError, match="this Modal backend is closed"):
        await backend.evaluate([request()])
    assert container_status("L40S").info.boot == boot


def test_a_number_of_gpus_that_makes_no_sense_is_refused():
    with pytest.raises(UserError, match="allowed are 1 to 64"):
        ModalBackend("L4", gpus=0)
