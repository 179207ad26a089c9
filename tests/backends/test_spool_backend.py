"""The spool as the search sees it. The other side is played by hand here: no process is started."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kbopt.backends import spool as spool_backend
from kbopt.backends.opening import Reminder
from kbopt.backends.spool import SpoolBackend, drain_command, kept_owner
from kbopt.cluster.evaluator import EvaluationQueue
from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import Result, Seconds
from kbopt.core.outcomes import WrongAnswer
from kbopt.core.ports import BackendStatus
from kbopt.evaluation.spool.asked import Requests
from kbopt.evaluation.spool.files import AppendOnly, request_id
from kbopt.evaluation.spool.jobs import Job, show_life
from kbopt.store.cache import EvaluationCache
from tests.support import quick_task

GPU, OTHER_GPU = "NVIDIA L40S", "NVIDIA A100"


@pytest.fixture(autouse=True)
def brief_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_backend, "OPEN_S", 0.2)


def result(name: str, device: str = GPU) -> Result:
    return Result(
        outcome=WrongAnswer(reason=name),
        feedback=f"feedback of {name}",
        device=device,
        protocol=quick_task.PROTOCOL.id,
        boot="boot",
        seconds=Seconds(check=1.5),
        device_s=0.5,
    )


class Hand:
    """A job that answers what it is told to."""

    def __init__(self, folder: Path, name: str = "hand", device: str = GPU) -> None:
        self.folder, self.name, self.device = folder, name, device
        self.requests = Requests(folder, name, pytest.fail)
        self.requests.device = device
        self.results = AppendOnly(folder / "results" / f"{name}.jsonl")
        self.judged: list[str] = []
        self.beat = 0

    def live(self, state: str = "serving") -> None:
        self.beat += 1
        job = Job(name=self.name, host="gpu07", device=self.device, boot="boot", beat=self.beat, time=60.0)
        show_life(self.folder, codec.decode(Job, {**codec.encode(job), "state": state}))

    async def answer(self, answer: Callable[[str], dict[str, object]] | None = None) -> str:
        """Waits for the next request, and answers it."""
        while True:
            self.requests.look()
            taken = self.requests.take()
            if taken is not None:
                break
            await asyncio.sleep(0.01)
        asked, request = taken
        self.judged.append(request.source)
        what = (
            answer(request.source)
            if answer
            else {"result": codec.encode(result(request.source, self.device))}
        )
        self.results.append({"id": asked.id, "job": self.name, **what})
        return request.source


@asynccontextmanager
async def opened(folder: Path, owner: str = "me", **options: object) -> AsyncIterator[SpoolBackend]:
    backend = SpoolBackend(folder, owner=owner, poll_s=0.02, **options)  # type: ignore[arg-type]
    await backend.open()
    try:
        yield backend
    finally:
        await backend.close()


def ask(backend: SpoolBackend, source: str, repeat: int = 0) -> asyncio.Task[list[Result]]:
    return asyncio.create_task(backend.evaluate([quick_task.request(source, repeat=repeat)]))


async def test_results_hold_what_the_job_wrote(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as backend:
        asked = asyncio.create_task(backend.evaluate([quick_task.request("a"), quick_task.request("b")]))
        hand = Hand(tmp_path / "s")
        assert {await hand.answer(), await hand.answer()} == {"a", "b"}
        assert await asked == [result("a"), result("b")]


async def test_requests_are_written_before_any_job_was_seen(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as backend:
        assert (await backend.status()).state == "waiting"
        asked = ask(backend, "a")
        hand = Hand(tmp_path / "s")
        await hand.answer()
        await asked
        assert (await backend.status()).device == GPU


async def test_a_driver_that_was_killed_finds_its_results_and_joins_what_is_under_way(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as backend:
        hand = Hand(tmp_path / "s")
        done = ask(backend, "done")
        await hand.answer()
        await done
        left = ask(backend, "left")
        while not hand.requests.num_waiting:
            await asyncio.sleep(0.01)
            hand.requests.look()
        left.cancel()
    async with opened(tmp_path / "s") as backend:
        assert await ask(backend, "done") == [result("done")]
        asked = ask(backend, "left")
        await hand.answer()
        assert await asked == [result("left")]
    assert hand.judged == ["done", "left"]


async def test_what_has_a_result_is_read_although_much_that_was_left_has_none(tmp_path: Path) -> None:
    async with opened(tmp_path / "s", ahead=4) as backend:
        left = [ask(backend, source) for source in ("a", "b", "c", "judged")]
        hand = Hand(tmp_path / "s")
        while hand.requests.num_waiting < 4:
            await asyncio.sleep(0.01)
            hand.requests.look()
        for task in left:
            task.cancel()
    name = request_id("me", quick_task.request("judged"), 0)
    hand.results.append({"id": name, "job": "hand", "result": codec.encode(result("judged"))})

    backend = SpoolBackend(tmp_path / "s", owner="me", poll_s=0.02, ahead=1)
    evaluator = EvaluationQueue(backend, EvaluationCache(tmp_path / "cache.sqlite"))
    sources = ("a", "b", "c", "judged", "new", "newer")
    asked = {one: asyncio.create_task(evaluator.evaluate(one, quick_task.request(one))) for one in sources}
    answer = await asyncio.wait_for(asked["judged"], 10)
    assert answer.result.feedback == "feedback of judged"
    while hand.requests.num_waiting < 4:  # The three that were left, and one for a job.
        await asyncio.sleep(0.01)
        hand.requests.look()
    assert backend.max_in_flight == 4
    for _ in ("a", "b", "c", "new", "newer"):
        await hand.answer()
    await asyncio.gather(*asked.values())
    assert hand.judged == ["a", "b", "c", "new", "newer"]
    while backend.max_in_flight > 1:
        await asyncio.sleep(0.01)
    await evaluator.close()


async def test_another_driver_and_another_repeat_are_judged_for_themselves(tmp_path: Path) -> None:
    async with opened(tmp_path / "s", "me") as mine, opened(tmp_path / "s", "you") as yours:
        hand = Hand(tmp_path / "s")
        tasks = [ask(mine, "a"), ask(mine, "a", repeat=1), ask(mine, "a"), ask(yours, "a")]
        for _ in tasks:
            await hand.answer()
        await asyncio.gather(*tasks)
    assert hand.judged == ["a"] * 4


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"user_error": "no such task"}, UserError, "no such task"),
        ({"infra_error": "the GPU is lost"}, InfraError, "the GPU is lost"),
        ({"result": {"type": "Result", "colour": "red"}}, InfraError, r"hand\.jsonl, line 1: .*colour"),
        ({"result": {}}, InfraError, r"hand\.jsonl, line 1: the result cannot be read"),
        ({}, InfraError, r"hand\.jsonl, line 1: the result cannot be read: 'result'"),
    ],
)
async def test_an_error_is_raised_and_asking_again_is_judged_again(
    fields: dict[str, object], kind: type[Exception], message: str, tmp_path: Path
) -> None:
    async with opened(tmp_path / "s") as backend:
        hand = Hand(tmp_path / "s")
        asked = ask(backend, "a")
        await hand.answer(lambda _: fields)
        with pytest.raises(kind, match=message):
            await asked
    async with opened(tmp_path / "s") as backend:  # and after a restart too
        asked = ask(backend, "a")
        await hand.answer()
        assert await asked == [result("a")]


async def test_a_refusal_that_came_while_nobody_waited_is_kept_where_that_is_asked_for(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path / "s", keeps_refusals=True) as backend:
        asked = ask(backend, "a")
        while not any(file.read_bytes() for file in (tmp_path / "s" / "requests").iterdir()):
            await asyncio.sleep(0.01)
        asked.cancel()
    hand = Hand(tmp_path / "s")
    await hand.answer(lambda _: {"user_error": "no such task", "device": GPU})
    async with opened(tmp_path / "s", keeps_refusals=True) as backend:
        with pytest.raises(UserError, match="no such task"):
            await ask(backend, "a")
        assert (await backend.status()).device == GPU
    assert hand.judged == ["a"]


async def test_a_search_stays_on_the_device_on_which_it_began(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as backend:
        first, second = ask(backend, "a"), ask(backend, "b")
        here, elsewhere = Hand(tmp_path / "s", "here"), Hand(tmp_path / "s", "elsewhere", OTHER_GPU)
        await here.answer()
        await first
        await elsewhere.answer()  # it was asked before the device was known
        with pytest.raises(InfraError, match=f"was judged on {OTHER_GPU}, and this search is on {GPU}"):
            await second
        third = ask(backend, "c")
        elsewhere.live()
        await asyncio.sleep(0.1)
        elsewhere.live()
        await asyncio.sleep(0.1)
        elsewhere.requests.look()
        assert elsewhere.requests.take() is None
        status = await backend.status()
        assert (status.state, status.device) == ("waiting", GPU)
        assert f"jobs on {OTHER_GPU} judge nothing of this search, which is on {GPU}" in status.detail
        third.cancel()
    async with opened(tmp_path / "s") as backend:
        assert (await backend.status()).device == GPU


async def test_without_a_job_it_says_each_minute_what_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_backend, "REMIND_S", 0.3)
    folder = tmp_path / "my spool"
    said: list[str] = []
    async with opened(folder, say=said.append) as backend:
        asked = ask(backend, "a")
        while len(said) < 3:
            await asyncio.sleep(0.02)
        asked.cancel()
    command = f"python -m kbopt.evaluation drain '{folder}' --minutes 55"
    assert said[0] == f"1 request waits in {folder}, which no job drains. Where the GPU is: {command}"
    assert drain_command(Path("/s"), "cpu") == "python -m kbopt.evaluation drain /s --minutes 55 --device cpu"


def test_a_search_says_each_minute_what_a_backend_waits_for() -> None:
    now = 0.0
    said: list[str] = []
    remind = Reminder(said.append, lambda: now)
    states = ("waiting", "waiting", "waiting", "warm", "waiting", "waiting")
    for second, state in zip((30.0, 59.0, 60.0, 100.0, 159.0, 161.0), states, strict=True):
        now = second
        remind(BackendStatus(state=state, device="", boot="", age_s=0.0, detail=f"{second:g}"))
    assert said == ["backend waiting: 60", "backend waiting: 161"]


async def test_it_is_warm_while_a_job_gives_signs_of_life_and_counts_on_more_with_more_jobs(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path / "s", ahead=3) as backend:
        hands = [Hand(tmp_path / "s", name) for name in ("one", "two")]
        for _ in range(2):
            for hand in hands:
                hand.live()
            await asyncio.sleep(0.1)
        status = await backend.status()
        assert (status.state, status.device, status.boot) == ("warm", GPU, "boot, boot")
        assert status.detail == "0 requests wait for 2 jobs on gpu07"
        assert backend.max_in_flight == 6
        for hand in hands:
            hand.live("ended")
        await asyncio.sleep(0.1)
        status = await backend.status()
        assert status.state == "waiting"
        assert "which no job drains since" in status.detail
        assert backend.max_in_flight == 3
    assert (await backend.status()).state == "closed"


async def test_what_a_job_complains_of_reaches_the_user(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as backend:
        for beat in (1, 2):
            show_life(
                tmp_path / "s",
                Job(name="j", host="h", device=GPU, state="serving", beat=beat, trouble="the disk is full"),
            )
            await asyncio.sleep(0.1)
        assert "j says: the disk is full" in (await backend.status()).detail


async def test_what_its_jobs_do_is_known_while_they_serve(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as backend:
        for beat, name, phases in (
            (1, "one", {}),
            (1, "two", {}),
            (2, "one", {"timing": 1, "building": 2}),
            (2, "two", {"building": 1}),
        ):
            show_life(
                tmp_path / "s",
                Job(name=name, host="h", device=GPU, state="serving", beat=beat, phases=phases),
            )
            await asyncio.sleep(0.1)
        assert (await backend.status()).phases == {"timing": 1, "building": 3}
        for name in ("one", "two"):
            show_life(tmp_path / "s", Job(name=name, host="h", device=GPU, state="ended", beat=3))
        await asyncio.sleep(0.1)
        assert (await backend.status()).phases == {}


async def test_a_spool_that_vanishes_is_an_error_and_no_endless_wait(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as backend:
        asked = ask(backend, "a")
        while not any(file.read_bytes() for file in (tmp_path / "s" / "requests").iterdir()):
            await asyncio.sleep(0.01)
        shutil.rmtree(tmp_path / "s")
        with pytest.raises(InfraError, match="cannot read the spool"):
            await asked
        with pytest.raises(InfraError, match="cannot write"):
            await ask(backend, "b")
        assert (await backend.status()).state == "failed"


async def test_a_folder_that_is_no_spool_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="it holds thesis"):
        await SpoolBackend(tmp_path).open()


async def test_no_secret_is_in_the_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-the-gpu-machine")
    async with opened(tmp_path / "s") as backend:
        asked = ask(backend, "a")
        await Hand(tmp_path / "s").answer()
        await asked
    written = [path.read_text() for path in (tmp_path / "s").rglob("*") if path.is_file()]
    assert len(written) == 4
    assert not [text for text in written if "sk-not" in text]
    (asked_line,) = [json.loads(text) for text in written if "EvalRequest" in text]
    assert sorted(asked_line) == ["device", "id", "kbopt spool", "owner", "request"]


def test_a_runs_owner_stays_the_same_and_another_runs_is_another(tmp_path: Path) -> None:
    first = kept_owner(tmp_path)
    assert kept_owner(tmp_path) == first
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    assert kept_owner(tmp_path) not in ("", first)
    assert [path.name for path in tmp_path.iterdir()] == ["spool-owner"]
