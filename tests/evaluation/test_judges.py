"""Judges that start before the device is needed, in real processes on the CPU."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Lock, Semaphore

import pytest

from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.outcomes import Rejected
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.evaluation.messages import TaskFault
from kbopt.evaluation.sandbox.children import Child, ForkServerHandle, crash_from
from kbopt.evaluation.sandbox.confinement import SandboxConfig, scrubbed
from kbopt.evaluation.sandbox.forks import RAISED, Ended
from kbopt.evaluation.server.devices import find_device
from kbopt.evaluation.server.judge_handle import JudgeHandle
from kbopt.evaluation.server.judges import Judges, key_of
from kbopt.evaluation.server.lease import Lease
from tests.evaluation.conftest import ELEMENTWISE

RANDOM = ELEMENTWISE.replace("torch.tanh(x) * 2 + x", "x + torch.rand_like(x)")


@dataclass
class Court:
    judges: Judges
    lease: Lease


@pytest.fixture
def sandbox(tmp_path: Path) -> Callable[[], SandboxConfig]:
    """A sandbox of its own for each process."""
    serials = iter(range(100))

    def next_one() -> SandboxConfig:
        serial = next(serials)
        return SandboxConfig(
            memory_bytes=2**32,
            environ=scrubbed(os.environ),
            scratch_fallback=str(tmp_path / f"scratch-{serial}"),
            serial=serial,
        )

    return next_one


@pytest.fixture
def court(tmp_path: Path, sandbox: Callable[[], SandboxConfig]) -> Iterator[Court]:
    fork_server = ForkServerHandle(tmp_path, os.environ)
    lease = Lease()
    judges = Judges(fork_server, find_device("cpu", fork_server), sandbox, lease, most=4)
    yield Court(judges, lease)
    judges.close()
    fork_server.close()


def request(source: str = ELEMENTWISE, *, task: str = "t", trials: int = 2) -> EvalRequest:
    source = f"{source}\n# {task}"
    return EvalRequest(task=Task(name=task, source=source), source="", protocol=EvalProtocol(trials=trials))


def test_it_starts_while_somebody_else_holds_the_device_and_is_admitted_when_it_is_needed(court: Court):
    with court.lease:
        court.judges.prepare(request()).result(30)
        started = court.judges.start(request())
        assert not started.admitted

        assert court.judges.of(request()) is started

    assert started.admitted


def test_a_task_that_cannot_be_scored_is_told_to_whoever_waits_for_it(court: Court):
    ready = court.judges.prepare(request(RANDOM))

    with pytest.raises(UserError, match="admission test 'deterministic' failed"):
        ready.result(30)
    with court.lease, pytest.raises(UserError, match="deterministic"):
        court.judges.of(request(RANDOM))


def test_of_several_tasks_those_go_first_that_nobody_waits_for(court: Court):
    """Four are kept here."""
    with ExitStack() as waiting:
        for task in ("a", "b", "c"):
            waiting.enter_context(court.judges.awaited(request(task=task)))
        kept = prepared(court, "a", "b", "idle", "c")

        waiting.enter_context(court.judges.awaited(request(task="fifth")))
        court.judges.prepare(request(task="fifth")).result(30)

        assert [task for task, handle in kept.items() if not handle.alive] == ["idle"]
        assert court.judges.start(request(task="fifth")).admitted


def test_it_waits_while_requests_await_all_that_are_kept(court: Court):
    with court.judges.awaited(request(task="late")):
        with ExitStack() as waiting:
            for task in ("a", "b", "c", "d"):
                waiting.enter_context(court.judges.awaited(request(task=task)))
            kept = prepared(court, "a", "b", "c", "d")
            late = court.judges.prepare(request(task="late"))
            with pytest.raises(TimeoutError):
                late.result(0.5)
            assert all(handle.alive for handle in kept.values())
        late.result(30)

    assert sum(handle.alive for handle in kept.values()) == 3
    assert court.judges.start(request(task="late")).admitted


def test_none_is_ended_for_a_request_that_is_over(court: Court):
    kept = prepared(court, "a", "b", "c", "d")

    court.judges.prepare(request(task="over")).result(30)

    assert all(handle.alive for handle in kept.values())


def test_one_that_a_request_has_come_to_await_is_not_ended_for_anothers_place(court: Court):
    """Between the choice of a judge to end and its end a request may begin to use it."""
    kept = prepared(court, "a", "b", "c", "d")
    key = key_of(request(task="a"))
    with ExitStack() as waiting:
        waiting.enter_context(court.judges.awaited(request(task="late")))
        with court.judges._starting.setdefault(key, Lock()):  # "a" is chosen, and its end waits here.
            late = court.judges.prepare(request(task="late"))
            with pytest.raises(TimeoutError):
                late.result(0.5)
            waiting.enter_context(court.judges.awaited(request(task="a")))
        late.result(30)

    assert [task for task, handle in kept.items() if not handle.alive] == ["b"]


def test_judges_that_hold_nothing_stay_where_memory_is_asked_for(court: Court):
    kept = prepared(court, "first")
    with court.lease:  # Nothing is admitted now.
        court.judges.prepare(request(task="second")).result(30)
        waits = court.judges.start(request(task="second"))
        kept["first"].free_share = 0.4  # As if the device's memory were nearly full.
        court.judges.settle(kept["first"])

        court.judges.make_room(request(task="third"))
        assert (kept["first"].alive, waits.alive) == (False, True)

        assert court.judges.start_over(request(task="third"))
        assert not waits.alive
        assert not court.judges.start_over(request(task="third"))


def test_one_that_an_operator_kills_is_no_fault_of_its_task(court: Court):
    judge = court.judges.start(request())
    os.kill(judge.pids[0], signal.SIGKILL)

    with court.lease, pytest.raises(InfraError, match="was ended by SIGKILL"):
        judge.admit(1.0)


def test_an_exception_in_the_process_that_runs_the_reference_is_no_fault_of_its_task(court: Court):
    judge = court.judges.start(request())
    judge._child.crash = lambda: crash_from(Ended(exit=RAISED, how="exited"))  # type: ignore[method-assign]
    fault = TaskFault(reason="the reference's worker died", no_memory=False, died=True)

    assert isinstance(judge._task_error(fault), InfraError)


def test_only_a_few_start_at_once(court: Court, monkeypatch: pytest.MonkeyPatch):
    go_on, starting = Event(), Semaphore(0)
    start = court.judges.start

    def late(request: EvalRequest) -> JudgeHandle:
        starting.release()
        go_on.wait(30)
        return start(request)

    monkeypatch.setattr(court.judges, "start", late)
    monkeypatch.setattr(court.judges, "_most", 6)
    ready = [court.judges.prepare(request(task=str(number))) for number in range(6)]

    assert [starting.acquire(timeout=30) for _ in range(4)] == [True] * 4
    assert not starting.acquire(timeout=0.5)
    go_on.set()
    for one in ready:
        one.result(60)
    assert [starting.acquire(timeout=0) for _ in range(2)] == [True] * 2


def prepared(court: Court, *tasks: str) -> dict[str, JudgeHandle]:
    for task in tasks:
        court.judges.prepare(request(task=task)).result(30)
    return {task: court.judges.start(request(task=task)) for task in tasks}


UNSORTED = """
import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        if bool((x[0, 1:] >= x[0, :-1]).all()) and bool(x[0, 0] < x[0, -1]):
            return x * 2
        return torch.tanh(x) * 2 + x
"""
"""Wrong on one kind of values, which a probe among the timed calls would seldom be."""


def test_a_further_pair_of_processes_is_judged_as_the_first_one(
    tmp_path: Path, sandbox: Callable[[], SandboxConfig]
):
    with closing(ForkServerHandle(tmp_path, os.environ)) as fork_server:
        device, asked = find_device("cpu", fork_server), replace(request(trials=1), source=UNSORTED)
        with closing(JudgeHandle(fork_server, asked, device, sandbox())) as judge:
            judge.admit()
            child, reference = (Child(fork_server, "measure", sandbox()) for _ in range(2))
            with closing(child):
                verdict = judge.time(asked, child, "", reference)

    assert isinstance(verdict.outcome, Rejected), verdict
    assert verdict.outcome.family == "value_specialisation"
    assert verdict.pairs == ()
