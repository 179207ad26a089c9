"""Referees that start before the device is needed, in real processes on the CPU."""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kbopt.core.errors import UserError
from kbopt.core.types import EvalProtocol, EvalRequest, Task
from kbopt.evaluation.children import ZygoteHandle
from kbopt.evaluation.devices import find_device
from kbopt.evaluation.referees import Referees
from kbopt.evaluation.sandbox import Limits, SandboxConfig, scrubbed
from tests.evaluation.conftest import ELEMENTWISE

RANDOM = ELEMENTWISE.replace("torch.tanh(x) * 2 + x", "x + torch.rand_like(x)")


@dataclass
class Court:
    referees: Referees
    lease: threading.Lock


@pytest.fixture
def court(tmp_path: Path) -> Iterator[Court]:
    zygote = ZygoteHandle(tmp_path, os.environ, prepare_cuda=False)
    serials = iter(range(100))

    def sandbox() -> SandboxConfig:
        serial = next(serials)
        return SandboxConfig(
            limits=Limits(memory_bytes=2**32),
            environ=scrubbed(os.environ),
            scratch_fallback=str(tmp_path / f"scratch-{serial}"),
            serial=serial,
        )

    lease = threading.Lock()
    referees = Referees(zygote, find_device("cpu", zygote), sandbox, lease)
    yield Court(referees, lease)
    referees.close()
    zygote.close()


def request(source: str = ELEMENTWISE, *, task: str = "t", trials: int = 2) -> EvalRequest:
    source = f"{source}\n# {task}"
    return EvalRequest(task=Task(name=task, source=source), source="", protocol=EvalProtocol(trials=trials))


def test_it_starts_while_somebody_else_holds_the_device_and_is_admitted_afterwards(court: Court):
    with court.lease:
        ready = court.referees.prepare(request())
        started = court.referees.start(request())
        assert not started.admitted
        assert not ready.done()

    ready.result(30)

    assert started.admitted
    assert court.referees.of(request()) is started


def test_a_task_that_cannot_be_scored_is_told_to_whoever_waits_for_it(court: Court):
    ready = court.referees.prepare(request(RANDOM))

    with pytest.raises(UserError, match="admission test 'deterministic' failed"):
        ready.result(30)
    with court.lease, pytest.raises(UserError, match="deterministic"):
        court.referees.of(request(RANDOM))


def test_of_several_tasks_those_go_first_that_nobody_waits_for(court: Court):
    """Four are kept on a CPU: of tasks that were prepared, the one that has judged makes room for a fifth."""
    for task in ("a", "used", "b", "c"):
        court.referees.prepare(request(task=task)).result(30)
    kept = {task: court.referees.start(request(task=task)) for task in ("a", "used", "b", "c")}
    kept["used"].used = True

    court.referees.prepare(request(task="fifth")).result(30)
    assert all(handle.alive for handle in kept.values())

    with court.lease:
        fifth = court.referees.of(request(task="fifth"))
    assert fifth.admitted
    assert [task for task, handle in kept.items() if not handle.alive] == ["used"]


def test_another_number_of_trials_brings_other_inputs_to_the_same_referee(court: Court):
    first = court.referees.start(request(trials=2))
    again = court.referees.start(request(trials=3))

    assert again is first
    assert first.has_loaded(2)
    assert first.has_loaded(3)
