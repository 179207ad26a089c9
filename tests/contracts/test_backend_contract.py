"""What every backend promises, whichever device it has: `kbopt.core.ports.Backend`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from kbopt.backends.local import LocalBackend
from kbopt.backends.modal_client import ModalBackend
from kbopt.core import codec
from kbopt.core.evaluations import EvalRequest, Result
from kbopt.core.outcomes import CompileFailed
from kbopt.core.ports import Backend, Profiler
from kbopt.core.profile import NotProfiled, Profile, ProfileRequest, Trace
from kbopt.core.task import Task
from kbopt.simulated import SimulatedBackend
from kbopt.simulated.kernels import to_source
from kbopt.simulated.landscapes import NUM_PARAMETERS
from tests.support import quick_task
from tests.support.drains import DrainedSpool
from tests.support.modal_plane import shared_plane

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True, slots=True)
class Subject:
    """A backend under test with sources that it can run, and one that does not compile."""

    make: Callable[[Path], Backend]
    task: Task
    good: Callable[[int], str]
    bad: str

    def request(self, source: str, repeat: int = 0) -> EvalRequest:
        return EvalRequest(task=self.task, source=source, protocol=quick_task.PROTOCOL, repeat=repeat)


def real(make: Callable[[Path], Backend]) -> Subject:
    return Subject(
        make, quick_task.TASK, lambda number: quick_task.good(f"contract {number}"), quick_task.SYNTAX_ERROR
    )


SUBJECTS = {
    "local": real(lambda folder: LocalBackend(device="cpu", state_dir=folder)),
    "modal": real(lambda folder: ModalBackend("L40S", lane="contract", poll_s=0.1)),
    "spool": real(DrainedSpool),
    "simulated": Subject(
        lambda folder: SimulatedBackend(),
        Task(name="sim/smooth", source="sim/smooth"),
        lambda number: to_source((number % 2,) * NUM_PARAMETERS),
        "no kernel",
    ),
}


@pytest.fixture(scope="module", params=SUBJECTS)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with pytest.MonkeyPatch.context() as environment:
        if request.param == "modal":
            environment.setenv("KBOPT_CACHE", str(tmp_path_factory.getbasetemp() / "locks"))
            for name, value in shared_plane().env.items():
                environment.setenv(name, value)
        yield SUBJECTS[request.param]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Backend]:
    backend = subject.make(tmp_path_factory.mktemp("state"))
    await backend.open()
    yield backend
    await backend.close()


async def test_an_open_backend_is_warm_and_says_on_which_device_and_boot(backend: Backend):
    status = await backend.status()
    assert status.state == "warm"
    assert status.device
    assert status.boot
    assert status.age_s >= 0
    assert status.cold_starts <= 1


async def test_results_come_in_the_order_of_the_requests(subject: Subject, backend: Backend):
    sources = [subject.good(0), subject.bad, subject.good(1)][: backend.max_batch]
    results = await backend.evaluate([subject.request(source) for source in sources])
    failed = [isinstance(result.outcome, CompileFailed) for result in results]
    assert failed == [False, True, False][: backend.max_batch]


async def test_a_result_names_what_answered_it(subject: Subject, backend: Backend):
    (result,) = await backend.evaluate([subject.request(subject.good(2))])
    status = await backend.status()
    assert (result.device, result.boot) == (status.device, status.boot)
    assert result.protocol == quick_task.PROTOCOL.id
    assert codec.loads(Result, codec.dumps(result)) == result


async def test_a_bad_source_is_a_result_with_feedback(subject: Subject, backend: Backend):
    (result,) = await backend.evaluate([subject.request(subject.bad)])
    assert isinstance(result.outcome, CompileFailed)
    assert result.feedback


async def test_a_backend_that_profiles_says_what_limits_a_source_or_why_not(
    subject: Subject, backend: Backend
):
    if not isinstance(backend, Profiler):
        pytest.skip("it has no profiles, which its callers are told")
    request = ProfileRequest(task=subject.task, source=subject.good(0), protocol=quick_task.PROTOCOL)
    found = await backend.profile(request)
    assert isinstance(found, Profile)
    assert found.device.name == (await backend.status()).device
    assert isinstance(found.trace, Trace)
    failed = await backend.profile(replace(request, source=subject.bad))
    assert isinstance(failed, NotProfiled)
    assert failed.reason


async def test_batches_may_overlap_up_to_the_limit(subject: Subject, backend: Backend):
    sources = [subject.good(10 + number) for number in range(min(4, backend.max_in_flight))]
    batches = await asyncio.gather(*(backend.evaluate([subject.request(source)]) for source in sources))
    assert [len(batch) for batch in batches] == [1] * len(sources)
    assert not any(isinstance(batch[0].outcome, CompileFailed) for batch in batches)


async def test_no_requests_are_no_results(backend: Backend):
    assert await backend.evaluate([]) == []


async def test_opening_twice_starts_nothing_more(backend: Backend):
    before = await backend.status()
    again = await backend.open()
    assert (again.boot, again.cold_starts) == (before.boot, before.cold_starts)


async def test_a_closed_backend_says_so(subject: Subject, tmp_path: Path):
    backend = subject.make(tmp_path)
    await backend.open()
    await backend.close()
    assert (await backend.status()).state == "closed"
