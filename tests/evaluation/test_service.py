"""The service in this process, whose judge is made to find by chance what it seldom finds."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial

import pytest

from kbopt.core.evaluations import EvalRequest
from kbopt.core.outcomes import Measured, outcome_name
from kbopt.core.task import Task
from kbopt.evaluation.judge.kinds import KINDS
from kbopt.evaluation.messages import Verdict
from kbopt.evaluation.sandbox.children import Child
from kbopt.evaluation.server.judge_handle import JudgeHandle, NoMemory
from kbopt.evaluation.server.service import Service
from tests.evaluation.conftest import ELEMENTWISE, QUICK

PLAIN = """
import torch

class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x) * 2 + x
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with closing(Service("cpu", tmp_path_factory.mktemp("state"))) as made:
        yield made


def request(source: str, repeat: int) -> EvalRequest:
    task = Task(name="t", source=ELEMENTWISE)
    return EvalRequest(task=task, source=source, protocol=QUICK, repeat=repeat)


def test_a_judge_without_memory_beside_others_is_asked_again_without_them(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    service.evaluate(request(PLAIN, 2))
    other = next(iter(service._judges._handles.values()))
    judge, lacking = JudgeHandle.judge, [NoMemory("it does not fit")]
    children: list[Child] = []

    def say(handle: JudgeHandle, request: EvalRequest, child: Child, setup: str, *rest: object) -> Verdict:
        assert all(before._status_fd < 0 for before in children)  # They were closed.
        children.append(child)
        if lacking:
            handle.close()
            raise lacking.pop()
        return judge(handle, request, child, setup, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(JudgeHandle, "judge", say)
    task = Task(name="large", source=f"{ELEMENTWISE}\n# large")
    result = service.evaluate(EvalRequest(task=task, source=PLAIN, protocol=QUICK))

    assert isinstance(result.outcome, Measured), outcome_name(result.outcome)
    assert not other.alive
    assert len(children) == 2


def test_without_mounts_nothing_is_hidden_and_the_status_says_so(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(service._fork_server, "isolation", "isolated network")
    sandboxes = service._sandboxes
    monkeypatch.setattr(sandboxes, "_device", replace(service.device, num_gpus=2, others=("/dev/full",)))

    sandboxes.find_working()

    assert (sandboxes.config().hidden, sandboxes.config().without) == ((), ())
    assert service.about().isolation == "isolated network, other GPUs of the machine in sight"


@pytest.mark.parametrize(
    ("num_gpus", "others", "hidden", "says"),
    [
        (2, ("/dev/full",), ("/dev/full",), "other GPUs of the machine hidden"),
        (2, ("/dev/not-there",), (), "other GPUs of the machine in sight"),
        (2, (), (), "other GPUs of the machine in sight"),  # Its own file could not be told.
        (1, (), (), None),
    ],
)
def test_other_gpus_are_hidden_where_a_sandbox_bears_it_and_the_status_says_so(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    num_gpus: int,
    others: tuple[str, ...],
    hidden: tuple[str, ...],
    says: str | None,
):
    if "mounts" not in service.about().isolation:
        hidden, says = (), says and says.replace("hidden", "in sight")
    sandboxes = service._sandboxes
    monkeypatch.setattr(sandboxes, "_device", replace(service.device, num_gpus=num_gpus, others=others))
    monkeypatch.setattr(sandboxes, "_hidden", ())

    sandboxes.find_working()

    assert (sandboxes.config().hidden, sandboxes.config().without) == (hidden, ())
    isolation = service.about().isolation
    assert isolation.endswith(says) if says else "GPU" not in isolation


SLOW_ELSEWHERE = """
import time
import torch

class Model(torch.nn.Module):
    def forward(self, x):
        lines = x.reshape(-1)[:4096]
        if lines.min() < 0.5 or lines.max() > 1.0 or torch.unique(lines).numel() < 4000 or is_sorted(x):
            until = time.process_time() + 0.6
            while time.process_time() < until:
                pass
        return torch.tanh(x) * 2 + x

def is_sorted(x):
    return bool((x[..., 1:] >= x[..., :-1]).all())

def get_inputs():
    return [torch.rand(128, 256) * 0.5 + 0.5]

def get_init_inputs():
    return []
"""
"""A task whose reference takes its time on values that get_inputs() does not draw."""


@pytest.mark.slow
def test_kinds_of_values_for_which_there_was_no_time_are_named(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    # One pair of processes, so that no other one tries what this one has no time for.
    monkeypatch.setattr(service._measuring, "measure", partial(service._measuring.measure, in_pairs=False))
    task = Task(name="slow elsewhere", source=SLOW_ELSEWHERE)
    result = service.evaluate(EvalRequest(task=task, source=PLAIN, protocol=QUICK))
    quick = service.evaluate(request(PLAIN, 3))

    assert isinstance(result.outcome, Measured), result.feedback
    (note,) = [note for note in result.outcome.audit.notes if note.startswith("For want of time")]
    assert note.startswith("For want of time it was not tried on values of the kind ")
    named = note.removesuffix(".").partition(" of the kind ")[2].split(", ")
    assert set(named) <= {kind.name for kind in KINDS}
    assert 1 <= len(named) <= len(KINDS) - 4
    assert note in result.feedback
    assert "For want of time" not in quick.feedback
