"""The evaluation queue against a backend with real concurrency, whose service time and faults are knobs."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kbopt.cluster.evaluator import EvaluationQueue
from kbopt.core.costs import Rent
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest, Result, Seconds
from kbopt.core.outcomes import CompileFailed, Crashed, Outcome, WrongAnswer
from kbopt.core.ports import BackendStatus
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.store.cache import EvaluationCache


class ScriptedBackend:
    """Answers after `service_s`; `faults` are raised first, one for each call; remembers its batches.

    Every result is `outcome`; without one, a wrong answer that depends on the source.
    """

    def __init__(self, service_s: float = 0.01, max_in_flight: int = 1, max_batch: int = 4) -> None:
        self.max_in_flight = max_in_flight
        self.max_batch = max_batch
        self.service_s = service_s
        self.faults: list[Exception] = []
        self.batches: list[list[str]] = []
        self.requests: list[EvalRequest] = []
        self.opened = 0
        self.cold_boots: tuple[str, ...] = ("b",)
        self.usd_per_batch = 0.0
        self.outcome: Outcome | None = None
        self.device_s = 0.25
        self.has_no_room = False
        self.status_fault: Exception | None = None

    async def open(self) -> BackendStatus:
        self.opened += 1
        return await self.status()

    async def evaluate(self, requests: Sequence[EvalRequest]) -> list[Result]:
        self.batches.append([request.source for request in requests])
        self.requests += requests
        await asyncio.sleep(self.service_s)
        if self.faults:
            raise self.faults.pop(0)
        if any("unscorable" in request.task.source for request in requests):
            raise UserError("the task admits zeros")
        if self.has_no_room and any(request.baselines for request in requests):
            raise UserError("judging task t needs 90 GiB of host memory")
        results = [replace(result(request.source), device_s=self.device_s) for request in requests]
        return [replace(one, outcome=self.outcome) if self.outcome else one for one in results]

    async def status(self) -> BackendStatus:
        if self.status_fault:
            raise self.status_fault
        num_batches = len(self.batches)
        rent = Rent(gpu="L4", seconds=float(num_batches), usd=self.usd_per_batch * num_batches)
        return BackendStatus(
            state="warm",
            device="test",
            boot="b",
            age_s=0.0,
            cold_boots=self.cold_boots,
            rent=rent if self.usd_per_batch else None,
        )

    async def close(self) -> None:
        self.opened = 0


def result(source: str) -> Result:
    reason = hashlib.sha256(source.encode()).hexdigest()
    return Result(
        outcome=WrongAnswer(reason=reason),
        feedback="",
        device="test",
        protocol="p",
        boot="b",
        seconds=Seconds(),
        device_s=0.25,
    )


def request(source: str, task: str = "t") -> EvalRequest:
    return EvalRequest(task=Task(name=task, source=task), source=source, protocol=EvalProtocol())


MakeQueue = Callable[[ScriptedBackend], EvaluationQueue]


@pytest.fixture
async def make_queue(tmp_path: Path) -> AsyncIterator[MakeQueue]:
    queues: list[EvaluationQueue] = []

    def make(backend: ScriptedBackend) -> EvaluationQueue:
        cache = EvaluationCache(tmp_path / "cache.sqlite")
        queues.append(EvaluationQueue(backend, cache, retry_delays_s=(0.0, 0.0)))
        return queues[-1]

    yield make
    for queue in queues:
        await queue.close()


async def test_answers_belong_to_their_requests(make_queue: MakeQueue) -> None:
    queue = make_queue(ScriptedBackend(max_in_flight=3))
    sources = [f"x = {i}" for i in range(40)]
    answers = await asyncio.gather(*(queue.evaluate("s", request(source)) for source in sources))
    assert [answer.result.outcome for answer in answers] == [result(source).outcome for source in sources]
    assert all(answer.result.seconds.queue > 0 for answer in answers)
    assert not any(answer.cached for answer in answers)


async def test_batches_are_filled_and_never_larger_than_the_backend_allows(make_queue: MakeQueue) -> None:
    backend = ScriptedBackend(max_batch=4)
    queue = make_queue(backend)
    await asyncio.gather(*(queue.evaluate("s", request(f"x = {i}")) for i in range(10)))
    assert [len(batch) for batch in backend.batches] == [4, 4, 2]


async def test_answers_say_how_many_requests_waited_when_the_device_was_done(make_queue: MakeQueue) -> None:
    queue = make_queue(ScriptedBackend(max_batch=2))
    answers = await asyncio.gather(*(queue.evaluate("s", request(f"x = {i}")) for i in range(5)))
    assert [answer.waiting for answer in answers] == [3, 3, 1, 1, 0]


async def test_equal_requests_in_flight_are_measured_once(make_queue: MakeQueue) -> None:
    backend = ScriptedBackend()
    queue = make_queue(backend)
    answers = await asyncio.gather(*(queue.evaluate(f"s{i}", request("x = 1  # again")) for i in range(5)))
    assert backend.batches == [["x = 1  # again"]]
    assert sorted(answer.cached for answer in answers) == [False, True, True, True, True]


async def test_a_known_source_comes_from_the_cache_also_after_a_restart(make_queue: MakeQueue) -> None:
    await make_queue(ScriptedBackend()).evaluate("s", request("x = 1"))
    backend = ScriptedBackend()
    answer = await make_queue(backend).evaluate("s", request("x  =  1"))
    assert answer.cached
    assert backend.batches == []


@pytest.mark.parametrize(
    ("outcome", "again"),
    [
        (CompileFailed(reason="ModuleNotFoundError: No module named 'triton'"), True),
        (CompileFailed(reason="SyntaxError", lasting=True), False),
        (Crashed(reason="no gcc", how="FileNotFoundError"), True),
        (Crashed(reason="x", how="ValueError"), False),
    ],
)
async def test_what_the_machine_may_have_lacked_is_tried_again_by_a_later_session_once(
    make_queue: MakeQueue, outcome: Outcome, again: bool
) -> None:
    failing = ScriptedBackend()
    failing.outcome = outcome
    first = make_queue(failing)
    for _ in range(2):
        await first.evaluate("s", request("x = 1"))
    assert failing.batches == [["x = 1"]]
    backend = ScriptedBackend()
    later = make_queue(backend)
    answers = [await later.evaluate("s", request("x = 1")) for _ in range(2)]
    assert backend.batches == ([["x = 1"]] if again else [])
    assert all(isinstance(answer.result.outcome, WrongAnswer) is again for answer in answers)


async def test_a_repeat_is_measured_again(make_queue: MakeQueue) -> None:
    backend = ScriptedBackend()
    queue = make_queue(backend)
    await queue.evaluate("s", request("x = 1"))
    again = await queue.evaluate("s", replace(request("x = 1"), repeat=1))
    assert not again.cached
    assert len(backend.batches) == 2


async def test_the_search_with_the_least_in_flight_goes_first(make_queue: MakeQueue) -> None:
    backend = ScriptedBackend(service_s=0.02, max_batch=2)
    queue = make_queue(backend)
    greedy = [asyncio.create_task(queue.evaluate("greedy", request(f"g = {i}"))) for i in range(10)]
    await asyncio.sleep(0.01)
    await queue.evaluate("modest", request("m = 1"))
    assert "m = 1" in backend.batches[1]
    await asyncio.gather(*greedy)


async def test_rent_is_shared_by_the_answers_of_a_batch_and_taken_once(make_queue: MakeQueue) -> None:
    backend = ScriptedBackend(max_batch=4)
    backend.usd_per_batch = 0.5
    queue = make_queue(backend)
    answers = await asyncio.gather(*(queue.evaluate("s", request(f"x = {i}")) for i in range(4)))
    assert [answer.rent for answer in answers] == [Rent(gpu="L4", seconds=0.25, usd=0.125)] * 4
    assert (await queue.evaluate("s", request("x = 1"))).rent is None  # from the cache
    assert await queue.take_rent() is None
    backend.batches.append([])
    assert await queue.take_rent() == Rent(gpu="L4", seconds=1.0, usd=0.5)


async def test_a_device_that_costs_nothing_has_no_rent(make_queue: MakeQueue) -> None:
    assert (await make_queue(ScriptedBackend()).evaluate("s", request("x = 1"))).rent is None


async def test_lost_batches_are_tried_again_and_reported(make_queue: MakeQueue) -> None:
    backend = ScriptedBackend()
    backend.faults = [InfraError("container lost"), InfraError("lost again")]
    answer = await make_queue(backend).evaluate("s", request("x = 1"))
    assert answer.result.outcome == result("x = 1").outcome
    assert [(f.attempt, f.reason) for f in answer.failures] == [(1, "container lost"), (2, "lost again")]


async def test_after_the_last_attempt_the_infrastructure_error_reaches_the_caller(
    make_queue: MakeQueue,
) -> None:
    backend = ScriptedBackend()
    backend.faults = [InfraError("down")] * 3
    queue = make_queue(backend)
    with pytest.raises(InfraError, match="given up after 3 attempts"):
        await queue.evaluate("s", request("x = 1"))
    assert (await queue.evaluate("s", request("x = 1"))).result.outcome == result("x = 1").outcome


async def test_an_unscorable_task_fails_alone(make_queue: MakeQueue) -> None:
    queue = make_queue(ScriptedBackend(max_batch=4))
    good = asyncio.create_task(queue.evaluate("good", request("x = 1")))
    with pytest.raises(UserError, match="admits zeros"):
        await queue.evaluate("bad", request("x = 2", task="unscorable"))
    assert (await good).result.outcome == result("x = 1").outcome


async def test_the_device_is_opened_once_for_all(make_queue: MakeQueue) -> None:
    backend = ScriptedBackend()
    queue = make_queue(backend)
    await asyncio.gather(*(queue.evaluate("s", request(f"x = {i}")) for i in range(5)))
    assert backend.opened == 1
    status = await queue.status()
    assert (status.evaluations, status.device_s, status.queue_length) == (5, 1.25, 0)


async def test_a_search_that_shares_no_results_measures_for_itself(make_queue: MakeQueue) -> None:
    backend = ScriptedBackend(max_batch=1)
    queue = make_queue(backend)
    answers = [await queue.evaluate(name, request("x = 1"), scope=name) for name in ("one", "two", "one")]
    assert [answer.cached for answer in answers] == [False, False, True]
    assert backend.batches == [["x = 1"], ["x = 1"]]


async def test_an_unforeseen_exception_reaches_every_caller_of_the_batch(make_queue: MakeQueue) -> None:
    backend = ScriptedBackend()
    backend.faults = [KeyError("outcome")]
    queue = make_queue(backend)
    async with asyncio.timeout(10):
        answers = await asyncio.gather(
            *(queue.evaluate("s", request(f"x = {i}")) for i in range(3)), return_exceptions=True
        )
        again = await queue.evaluate("s", request("x = 0"))
    assert [type(answer) for answer in answers] == [InfraError] * 3
    assert str(answers[0]) == "the evaluator failed: KeyError: 'outcome'"
    assert not again.cached
    assert (await queue.status()).in_flight == 0


async def test_a_result_that_is_no_json_is_an_error_and_a_string_that_is_no_utf8_is_kept(
    make_queue: MakeQueue,
) -> None:
    backend = ScriptedBackend()
    queue = make_queue(backend)
    backend.outcome = Crashed(reason="cannot open lib\udcff.so", how="RuntimeError")
    async with asyncio.timeout(10):
        await queue.evaluate("s", request("x = 1"))
        kept = await queue.evaluate("s", request("x = 1"))
        backend.outcome = None
        backend.device_s = float("nan")
        with pytest.raises(InfraError, match="JSON has no nan"):
            await queue.evaluate("s", request("x = 2"))
    assert kept.cached
    assert kept.result.outcome == Crashed(reason="cannot open lib\\udcff.so", how="RuntimeError")


async def test_a_device_whose_status_fails_leaves_nobody_waiting(make_queue: MakeQueue) -> None:
    backend = ScriptedBackend()
    queue = make_queue(backend)
    await queue.open()
    backend.status_fault = OSError("no such device")
    async with asyncio.timeout(10):
        with pytest.raises(InfraError, match="OSError: no such device"):
            await queue.evaluate("s", request("x = 1"))


async def test_closing_the_queue_tells_those_who_wait(make_queue: MakeQueue) -> None:
    queue = make_queue(ScriptedBackend(service_s=60.0))
    calls = [asyncio.create_task(queue.evaluate("s", request(f"x = {i}"))) for i in range(6)]
    await asyncio.sleep(0.05)
    await queue.close()
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {str(answer) for answer in answers} == {"the evaluator was closed before it answered"}
