"""The files of a spool, and which job judges what: no process is started here."""

import itertools
import os
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.evaluation.spool.asked import Requests
from kbopt.evaluation.spool.files import AppendOnly, Complaints, Tails, open_spool, request_id
from kbopt.evaluation.spool.jobs import Job, JobWatch, claim, show_life
from tests.support import quick_task


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return open_spool(tmp_path / "spool", create=True)


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """One job's view of the spool."""

    def __init__(self, spool: Path, name: str, device: str = "") -> None:
        self.clock = Clock()
        self.said: list[str] = []
        self.name = name
        self.spool = spool
        self.requests = Requests(spool, name, self.said.append, takeover_s=100, clock=self.clock)
        self.requests.device = device
        self.results = AppendOnly(spool / "results" / f"{name}.jsonl")

    def take(self) -> str | None:
        """The source of the next request."""
        self.requests.look()
        taken = self.requests.take()
        return taken[1].source if taken else None

    def live(self, beat: int, **changed: object) -> None:
        show_life(self.spool, replace(Job(name=self.name, host="h", beat=beat), **changed))


def driver(spool: Path, owner: str, device: str = "") -> Callable[[str], str]:
    """Asks for one source after the other; returns the id."""
    file = AppendOnly(spool / "requests" / f"{owner}.1.jsonl")

    def ask(source: str, **fields: object) -> str:
        request = quick_task.request(source)
        name = request_id(owner, request, 0)
        file.append(
            {"id": name, "owner": owner, "device": device, "request": codec.encode(request), **fields}
        )
        return name

    return ask


@contextmanager
def full_disk(at_bytes: int) -> Iterator[None]:
    """No file of this process can be longer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def lines(folder: Path, said: Callable[[str], None] = pytest.fail) -> list[int]:
    return [line.fields["n"] for line in Tails(folder, said).new()]


def test_half_a_line_is_none_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    tails = Tails(tmp_path, pytest.fail)
    whole = b'{"kbopt spool":1,"n":1}\n{"kbopt spool":1,"n":2}\n'
    seen = []
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        seen += [(line.number, line.fields["n"]) for line in tails.new()]
        assert len(seen) == whole[:end].count(b"\n")
    assert seen == [(1, 1), (2, 2)]


def test_a_line_that_the_full_disk_cut_is_written_again_whole(tmp_path: Path) -> None:
    file = AppendOnly(tmp_path / "a.jsonl")
    file.append({"n": 1, "text": "x" * 100})
    size = file.path.stat().st_size
    with full_disk(size + 50):
        with pytest.raises(InfraError, match=r"cannot write .*a\.jsonl"):
            file.append({"n": 2, "text": "x" * 100})
        assert file.path.stat().st_size == size + 50
        assert lines(tmp_path) == [1]
        file.append({"n": 3})
    file.append({"n": 2, "text": "x" * 100})
    assert lines(tmp_path) == [1, 3, 2]


def test_lines_of_many_threads_are_each_whole(tmp_path: Path) -> None:
    file = AppendOnly(tmp_path / "a.jsonl")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: file.append({"n": n, "text": "x" * n}), range(200)))
    assert sorted(lines(tmp_path)) == list(range(200))


def test_a_writer_never_goes_on_in_the_file_of_another(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"kbopt spool":1,"n":1')
    with pytest.raises(InfraError, match="File exists"):
        AppendOnly(tmp_path / "a.jsonl").append({"n": 2})
    AppendOnly(tmp_path / "b.jsonl").append({"n": 2})
    assert lines(tmp_path) == [2]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rubbish=st.lists(st.binary(max_size=40)))
def test_lines_that_are_rubbish_are_named_and_the_others_go_on(rubbish: list[bytes], spool: Path) -> None:
    folder = spool / "requests"
    parts = [line.replace(b"\n", b"") for line in rubbish]
    (folder / "a.jsonl").write_bytes(b"".join(part + b"\n" for part in parts) + b'{"kbopt spool":1,"n":1}\n')
    said: list[str] = []
    assert lines(folder, said.append) == [1]
    assert [f"line {number}:" in text for number, text in enumerate(said, start=1)] == [True] * len(parts)
    assert all(str(folder / "a.jsonl") in text for text in said)


def test_a_line_of_another_format_is_named_with_both_versions(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"kbopt spool":2,"n":1}\n{"kbopt spool":1,"n":2}\n')
    said: list[str] = []
    assert lines(tmp_path, said.append) == [2]
    assert "line 1: this has spool format 2, and this kbopt reads 1" in said[0]


def test_what_cannot_be_a_spool_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing is no folder\. Make it"):
        open_spool(tmp_path / "missing")
    with pytest.raises(UserError, match=r"cannot be a spool: .*No such file"):
        open_spool(tmp_path / "missing" / "below", create=True)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be a spool: .*File exists"):
        open_spool(tmp_path / "file", create=True)
    with pytest.raises(UserError, match=r"is no spool: it holds file, and no spool\.json"):
        open_spool(tmp_path)
    with full_disk(0), pytest.raises(UserError, match=r"cannot be a spool: .*File too large"):
        open_spool(tmp_path / "full", create=True)


def test_a_spool_of_another_format_is_refused_by_its_number(spool: Path) -> None:
    (spool / "spool.json").write_text('{"kbopt spool": 7}')
    with pytest.raises(UserError, match="is a spool of format 7, and this kbopt reads format 1"):
        open_spool(spool)
    (spool / "spool.json").write_text("{")
    with pytest.raises(UserError, match="does not say which format"):
        open_spool(spool)


def test_of_many_that_claim_at_once_one_has_it(spool: Path) -> None:
    names = [f"job{number}" for number in range(32)]
    with ThreadPoolExecutor(32) as pool:
        holders = list(pool.map(lambda name: claim(spool, "a" * 32, 0, name), names))
    winners = [name for name, holder in zip(names, holders, strict=True) if name == holder]
    assert len(winners) == 1
    assert claim(spool, "a" * 32, 0, "late") == winners[0]


def test_a_claim_that_the_full_disk_left_empty_is_taken_away(spool: Path) -> None:
    with full_disk(0), pytest.raises(OSError, match="File too large"):
        claim(spool, "a" * 32, 0, "a")
    assert claim(spool, "a" * 32, 0, "b") == "b"


def test_drivers_are_served_in_turn_however_much_one_asks(spool: Path) -> None:
    greedy, modest = driver(spool, "greedy"), driver(spool, "modest")
    for number in range(5):
        greedy(f"g{number}")
    modest("m0")
    modest("m1")
    job = Desk(spool, "job")
    assert [job.take() for _ in range(8)] == ["g0", "m0", "g1", "m1", "g2", "g3", "g4", None]


def test_two_jobs_take_each_request_once(spool: Path) -> None:
    ask = driver(spool, "o")
    for number in range(6):
        ask(str(number))
    one, other = Desk(spool, "one"), Desk(spool, "other")
    taken = [desk.take() for _ in range(4) for desk in (one, other)]
    assert taken == ["0", "1", "2", "3", "4", "5", None, None]


def test_a_killed_jobs_request_is_taken_over_once_it_is_silent(spool: Path) -> None:
    driver(spool, "o")("a")
    killed, one, other = (Desk(spool, name) for name in ("killed", "one", "other"))
    killed.live(1)
    assert killed.take() == "a"
    for now in (0, 60, 120):  # it lives
        killed.live(2 + now)
        one.clock.now = other.clock.now = now
        assert (one.take(), other.take()) == (None, None)
    one.clock.now = other.clock.now = 219
    assert (one.take(), other.take(), one.requests.num_left) == (None, None, 0)
    one.clock.now = other.clock.now = 221
    assert (one.take(), other.take()) == ("a", None)


def test_a_job_that_ended_leaves_its_requests_at_once(spool: Path) -> None:
    driver(spool, "o")("a")
    ended, next_one = Desk(spool, "ended"), Desk(spool, "next")
    ended.live(1)
    assert ended.take() == "a"
    assert next_one.take() is None
    assert next_one.requests.num_left == 1  # nobody knows yet whether that job lives
    ended.live(2, state="ended")
    assert next_one.take() == "a"


def test_a_claim_of_a_job_that_was_killed_as_it_made_it_expires(spool: Path) -> None:
    name = driver(spool, "o")("a")
    (spool / "claims" / f"{name}.0").touch()
    job = Desk(spool, "job")
    assert job.take() is None
    job.clock.now = 101
    assert job.take() == "a"


def test_what_a_job_wrote_before_it_ended_is_not_judged_again(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = driver(spool, "o")("a")
    ended, next_one = Desk(spool, "ended"), Desk(spool, "next")
    ended.live(1)
    assert ended.take() == "a"
    assert next_one.take() is None
    ended.results.append({"id": name, "result": {}})
    ended.live(2, state="ended")
    listing = Path.iterdir  # NFS may show a folder as it was a minute ago
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(() if path.name == "results" else listing(path)))
    assert next_one.take() is None
    assert next_one.requests.num_waiting == 0


def test_a_result_that_travelled_without_claims_counts(spool: Path) -> None:
    name = driver(spool, "o")("a")
    AppendOnly(spool / "results" / "elsewhere.jsonl").append({"id": name, "result": {}})
    job = Desk(spool, "job")
    assert job.take() is None
    assert not list((spool / "claims").iterdir())


def test_a_request_for_another_device_is_left_to_it(spool: Path) -> None:
    driver(spool, "o", "L40S")("a")
    driver(spool, "p")("b")
    wrong, right = Desk(spool, "wrong", "A100"), Desk(spool, "right", "L40S")
    assert [wrong.take(), wrong.take()] == ["b", None]
    assert (wrong.requests.num_elsewhere, wrong.requests.num_left) == (1, 0)
    assert wrong.requests.wanted_devices() == ("L40S",)
    assert right.take() == "a"


def test_requests_that_cannot_be_read_are_named_and_left_to_a_job_that_can(spool: Path) -> None:
    ask = driver(spool, "o")
    ask("new", request={"type": "EvalRequest", "colour": "red"})
    ask("bad", id="../../escape")
    ask("good")
    job = Desk(spool, "job")
    assert [job.take(), job.take()] == ["good", None]
    assert "o.1.jsonl, line 2: a request without id, owner and device; it is passed over" in job.said[0]
    assert "o.1.jsonl, line 1: the request cannot be read" in job.said[1]
    assert "colour" in job.said[1]
    assert len(list((spool / "claims").iterdir())) == 1


def test_a_sign_of_life_that_cannot_be_read_is_named(spool: Path) -> None:
    (spool / "jobs" / "a.json").write_text('{"name": "a", "host": "h", "mood": "good"}')
    said: list[str] = []
    complain = Complaints(said.append)
    watch = JobWatch(spool, complain)
    watch.look()
    watch.look()
    assert watch.alive == ()
    assert len(said) == 1
    assert "a.json" in said[0]
    assert "mood" in said[0]


def test_what_is_no_file_is_named_and_not_waited_for(spool: Path) -> None:
    os.mkfifo(spool / "requests" / "a.jsonl")
    (spool / "requests" / "b.jsonl").mkdir()
    (spool / "requests" / "c.jsonl").write_text('{"kbopt spool":1,"n":1}\n')
    os.mkfifo(spool / "jobs" / "a.json")
    said: list[str] = []
    JobWatch(spool, said.append).look()
    assert lines(spool / "requests", said.append) == [1]
    assert [text.partition(": ")[0].rpartition("/")[2] for text in said] == ["a.json", "a.jsonl", "b.jsonl"]
    assert "it is no regular file" in said[1]


def test_requests_differ_by_owner_content_repeat_and_asking() -> None:
    request = quick_task.request("a")
    names = {
        request_id("o", request, 0),
        request_id("p", request, 0),
        request_id("o", request, 1),
        request_id("o", quick_task.request("b"), 0),
        request_id("o", quick_task.request("a", repeat=1), 0),
    }
    assert len(names) == 5
    assert request_id("o", quick_task.request("a"), 0) in names


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["ask", "take", "answer", "kill", "end", "wait"]), st.integers(0, 2))
    )
)
def test_whoever_is_killed_when_each_request_is_answered_once(
    steps: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    spool = open_spool(tmp_path_factory.mktemp("any") / "spool", create=True)
    names = itertools.count()
    beats = itertools.count()
    clock = Clock()
    asks = [driver(spool, f"driver{number}") for number in range(3)]
    asked: list[str] = []
    held: dict[str, list[str]] = {}

    def begin() -> Desk:
        desk = Desk(spool, f"job{next(names)}")
        desk.requests = Requests(spool, desk.name, pytest.fail, takeover_s=100, clock=clock)
        held[desk.name] = []
        desk.live(next(beats))
        return desk

    def take(desk: Desk) -> bool:
        desk.requests.look()
        taken = desk.requests.take()
        held[desk.name] += [taken[0].id] if taken else []
        return taken is not None

    def answer(desk: Desk) -> None:
        if held[desk.name]:
            desk.results.append({"id": held[desk.name].pop(0), "result": {}})

    desks = [begin() for _ in range(3)]
    for step, number in steps:
        match step:
            case "ask":
                asked.append(asks[number](f"source {len(asked)}"))
            case "take":
                take(desks[number])
            case "answer":
                answer(desks[number])
            case "kill" | "end":
                if step == "end":
                    desks[number].live(next(beats), state="ended")
                desks[number] = begin()
            case "wait":
                for seconds in (60, 60):
                    clock.now += seconds
                    for desk in desks:
                        desk.live(next(beats))
                        desk.requests.look()
    for desk in desks:  # all of them are killed, and one more comes
        desk.live(next(beats))
    last = begin()
    while take(last):
        answer(last)
    clock.now += 101
    while take(last):
        answer(last)
    found = [line.fields["id"] for line in Tails(spool / "results", pytest.fail).new()]
    assert sorted(found) == sorted(asked)
