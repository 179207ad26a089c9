"""A drain with a service that is played: how it begins, goes on and ends. No process is started here."""

import asyncio
import resource
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest, Result, Seconds
from kbopt.core.outcomes import WrongAnswer
from kbopt.core.ports import Phase
from kbopt.evaluation.server import draining
from kbopt.evaluation.server.draining import Drain, Options
from kbopt.evaluation.service_messages import ServiceInfo
from kbopt.evaluation.spool.files import AppendOnly, Tails, open_spool, request_id
from kbopt.evaluation.spool.jobs import Job, show_life
from tests.support import quick_task


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(draining, "POLL_S", 0.02)
    monkeypatch.setattr(draining, "PAUSE_S", 0.1)
    return open_spool(tmp_path / "spool", create=True)


class Service:
    """Answers as `judge` does; each start of it is another boot."""

    def __init__(self, judge: Callable[[str], object] = lambda _: None, *, is_isolated: bool = True) -> None:
        self.log = Path("service.log")
        self.alive = False
        self.starts = 0
        self.phases: Mapping[Phase, int] = {}
        self.asked: list[str] = []
        self._judge = judge
        self._is_isolated = is_isolated

    async def open(self) -> ServiceInfo:
        self.starts += 1
        self.alive = True
        return ServiceInfo(
            device="CPU", boot=f"boot{self.starts}", started=0.0, pid=1, is_isolated=self._is_isolated,
            isolation="nothing",
        )  # fmt: skip

    async def evaluate(self, request: EvalRequest) -> Result:
        self.asked.append(request.source)
        await asyncio.sleep(0)
        answer = self._judge(request.source)
        if answer == "die":
            self.alive = False
            raise InfraError("the service died")
        if answer == "hang":
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        return Result(
            outcome=WrongAnswer(reason=request.source),
            feedback="",
            device="CPU",
            protocol="p",
            boot=f"boot{self.starts}",
            seconds=Seconds(),
            device_s=0.0,
        )

    async def close(self) -> None:
        self.alive = False


def ask(spool: Path, *sources: str) -> None:
    file = AppendOnly(spool / "requests" / f"{'-'.join(sources)}.jsonl")
    for source in sources:
        request = quick_task.request(source)
        name = request_id("o", request, 0)
        file.append({"id": name, "owner": "o", "device": "", "request": codec.encode(request)})


def answers(spool: Path) -> list[str]:
    """What was answered: a result's reason, or the error."""
    found = []
    for line in Tails(spool / "results", pytest.fail).new():
        what = line.fields
        found.append(what["result"]["outcome"]["reason"] if "result" in what else str(what))
    return found


def lives(spool: Path) -> list[Job]:
    return [codec.loads(Job, path.read_text()) for path in (spool / "jobs").iterdir()]


async def drained(spool: Path, service: Service, **options: object) -> tuple[Drain, list[str]]:
    said: list[str] = []
    drain = Drain(spool, service, Options(**options), said.append)  # type: ignore[arg-type]
    await asyncio.wait_for(drain.run(), 20)
    return drain, said


async def test_once_serves_what_is_there_and_ends(spool: Path) -> None:
    ask(spool, "a", "b", "c")
    _, said = await drained(spool, Service(), once=True)
    assert sorted(answers(spool)) == ["a", "b", "c"]
    assert said[-1] == "3 judged, 0 wait"
    (job,) = lives(spool)
    assert (job.state, job.device, job.judged, job.waiting) == ("ended", "CPU", 3, 0)
    _, said = await drained(spool, Service(), once=True)
    assert said[-1] == "0 judged, 0 wait"


async def test_after_its_minutes_it_finishes_what_is_begun_and_takes_nothing_more(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(spool, "a")

    def late(_: str) -> None:
        ask(spool, "late")
        monkeypatch.setattr(drain, "_deadline", 0.0)

    drain = Drain(spool, Service(late), Options(minutes=60), lambda _: None)  # type: ignore[arg-type]
    await asyncio.wait_for(drain.run(), 20)
    assert answers(spool) == ["a"]
    _, said = await drained(spool, Service(), minutes=1e-9)
    assert said[-1] == "0 judged, 1 wait"


async def test_results_wait_for_a_full_disk_to_have_room(spool: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(_: str) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))

    def empty(text: str) -> None:
        said.append(text)
        if "/results/" in text:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    said: list[str] = []
    ask(spool, "a")
    try:
        drain = Drain(spool, Service(fill), Options(once=True), empty)  # type: ignore[arg-type]
        await asyncio.wait_for(drain.run(), 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert answers(spool) == ["a"]
    (full,) = [text for text in said if "/results/" in text]
    assert "File too large" in full
    assert "it is tried again every 0.1 s" in full


async def test_errors_are_answers_and_a_service_that_died_is_started_again(spool: Path) -> None:
    bad: dict[str, object] = {"no": UserError("no such task"), "kills": "die"}
    ask(spool, "no", "kills", "good")
    service = Service(bad.get)
    await drained(spool, service, once=True)
    found = answers(spool)
    assert len(found) == 3
    assert [text for text in found if "'user_error': 'no such task'" in text]
    assert [text for text in found if "'infra_error': 'the service died'" in text]
    assert service.starts == 2


async def test_a_machine_whose_service_dies_again_and_again_leaves_the_rest_to_others(spool: Path) -> None:
    ask(spool, *(f"s{number}" for number in range(20)))
    service = Service(lambda _: "die")
    with pytest.raises(InfraError, match="died 3 times without a result in between"):
        await drained(spool, service)
    assert service.starts == 3
    assert len(answers(spool)) <= 6
    assert [job.state for job in lives(spool)] == ["ended"]


async def test_sigterm_gives_up_what_is_under_way_for_the_next_job(spool: Path) -> None:
    ask(spool, "a")

    def hang(_: str) -> str:
        signal.raise_signal(signal.SIGTERM)
        return "hang"

    drain, said = await drained(spool, Service(hang))
    assert said[-1] == "0 judged, 1 wait"
    assert drain.stopped_by == signal.SIGTERM
    assert answers(spool) == []
    await drained(spool, Service(), once=True)
    assert answers(spool) == ["a"]
    assert len(list((spool / "claims").iterdir())) == 2


async def test_a_slow_sign_of_life_is_not_written_after_the_last_one(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_unless_last(folder: Path, job: Job) -> None:
        time.sleep(0.0 if job.state == "ended" else 0.5)
        show_life(folder, job)

    monkeypatch.setattr(draining, "show_life", slow_unless_last)
    ask(spool, "a")
    await drained(spool, Service(), once=True)
    await asyncio.get_running_loop().shutdown_default_executor()  # Its threads have ended.
    (job,) = lives(spool)
    assert job.state == "ended"


async def test_without_a_sandbox_nothing_is_judged_unless_the_user_says_so(spool: Path) -> None:
    ask(spool, "a")
    with pytest.raises(UserError, match="NO SANDBOX: this machine cannot isolate candidates"):
        await drained(spool, Service(is_isolated=False), once=True)
    assert answers(spool) == []
    _, said = await drained(spool, Service(is_isolated=False), once=True, no_sandbox=True)
    assert answers(spool) == ["a"]
    assert said[0].startswith("NO SANDBOX")


async def test_a_drain_says_which_device_the_requests_want(spool: Path) -> None:
    file = AppendOnly(spool / "requests" / "a.jsonl")
    request = codec.encode(quick_task.request("a"))
    file.append({"id": "a" * 32, "owner": "o", "device": "NVIDIA L40S", "request": request})
    _, said = await drained(spool, Service(), once=True)
    assert said[-1] == "0 judged, 1 wait, 1 of them for another device: NVIDIA L40S"


async def test_a_spool_that_vanishes_ends_the_drain(spool: Path) -> None:
    ask(spool, "a")

    def vanish(_: str) -> None:
        spool.rename(spool.with_name("elsewhere"))

    with pytest.raises(InfraError, match="spool is gone"):
        await drained(spool, Service(vanish))
