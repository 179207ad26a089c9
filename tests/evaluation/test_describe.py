"""What is said of a task without a candidate: in real processes on the CPU, through the service's client."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kbopt.core.errors import InfraError
from kbopt.core.evaluations import Admitted, EvalRequest, Refused, TaskReport
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.evaluation.client import ServiceClient
from tests.evaluation.conftest import ELEMENTWISE, QUICK, Bench

RANDOM = ELEMENTWISE.replace("torch.tanh(x) * 2 + x", "x + torch.rand_like(x)")
IDENTITY = ELEMENTWISE.replace("torch.tanh(x) * 2 + x", "torch.relu(x)").replace("randn", "rand")
COUNTS = ELEMENTWISE.replace(
    "    def forward(self, x):",
    "    calls = 0\n\n    def forward(self, x):\n        self.calls += 1\n        x = x * self.calls",
)
HUGE = ELEMENTWISE.replace("256, 512", "2**16, 2**12")


@pytest.fixture(scope="module")
def cramped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A service that may use 3 GiB of host memory."""
    with asyncio.Runner() as runner:
        client = ServiceClient(device="cpu", state_dir=tmp_path_factory.mktemp("cramped"), memory_gib=3)
        runner.run(client.open())
        yield Bench(runner, client)
        runner.run(client.close())


def described(bench: Bench, source: str, protocol: EvalProtocol = QUICK) -> TaskReport:
    task = Task(name="t", source=source)
    return bench.runner.run(bench.client.describe(EvalRequest(task=task, source="", protocol=protocol)))


def test_a_task_that_can_be_scored_has_its_times_and_what_judging_takes(bench: Bench) -> None:
    report = described(bench, ELEMENTWISE)
    assert isinstance(report, Admitted)
    assert (report.inputs_bytes, report.outputs_bytes, report.device_bytes) == (524288, 524288, 0)
    assert report.host_bytes > 8 * 524288
    assert 0 < report.floor_ms < 60
    assert 0 < report.reference_ms < 1000
    assert report.reference_ops_ms > 0
    assert report.seconds > 0
    assert report.tolerance == 1e-4
    assert not report.keeps_state
    assert report.device


def test_a_reference_that_raises_in_its_worker_alone_is_the_task_s_fault(bench: Bench) -> None:
    """One in Triton found no compiler there, and ended the judge."""
    in_worker = "import os\n" + ELEMENTWISE.replace(
        "    def forward(self, x):",
        "    def forward(self, x):\n"
        "        if os.getpid() < 100:\n"
        "            raise RuntimeError('no compiler here')",
    )

    report = described(bench, in_worker)

    assert isinstance(report, Refused)
    assert "RuntimeError: no compiler here" in report.reason


def test_more_data_take_more_memory_and_more_time_at_the_least(bench: Bench) -> None:
    small = described(bench, ELEMENTWISE)
    large = described(bench, ELEMENTWISE.replace("256, 512", "1024, 2048"))
    assert isinstance(small, Admitted)
    assert isinstance(large, Admitted)
    assert large.inputs_bytes == 16 * small.inputs_bytes
    assert large.host_bytes > small.host_bytes
    assert large.floor_ms > small.floor_ms


def test_a_task_is_refused_by_the_name_of_the_test_that_it_failed(bench: Bench) -> None:
    drawn, identity = described(bench, RANDOM), described(bench, IDENTITY)
    assert isinstance(drawn, Refused)
    assert drawn.test == "deterministic"
    assert drawn.reason.endswith("a task must not draw random numbers in forward")
    assert isinstance(identity, Refused)
    assert identity.test == "copy of an input"
    raises = described(bench, ELEMENTWISE.replace("torch.tanh(x)", "x.nothing()"))
    assert isinstance(raises, Refused)
    assert raises.test == "the reference runs"


def test_dropout_is_refused_only_while_training(bench: Bench) -> None:
    dropout = ELEMENTWISE.replace("torch.tanh(x) * 2 + x", "torch.dropout(x.tanh(), 0.5, self.training)")
    report = described(bench, dropout)
    assert isinstance(report, Refused)
    assert "--eval-mode judges it" in report.reason
    assert isinstance(described(bench, dropout, replace(QUICK, eval_mode=True)), Admitted)


def test_a_reference_that_keeps_state_is_admitted_and_said_to(bench: Bench) -> None:
    report = described(bench, COUNTS)
    assert isinstance(report, Admitted)
    assert report.keeps_state


def test_a_task_that_does_not_fit_is_refused_by_the_figures(cramped: Bench) -> None:
    report = described(cramped, HUGE)
    assert isinstance(report, Refused)
    assert "--memory-gib" in report.reason
    assert isinstance(described(cramped, ELEMENTWISE), Admitted)


def test_one_that_was_described_is_judged_by_the_same_judge_afterwards(bench: Bench) -> None:
    described(bench, ELEMENTWISE)
    kernel = (
        "import torch\nclass ModelNew(torch.nn.Module):\n    forward = lambda self, x: torch.zeros_like(x)"
    )
    assert "Wrong answer" in bench.judge(kernel).feedback


async def test_a_service_that_is_not_there_describes_nothing(tmp_path: Path) -> None:
    client = ServiceClient(device="cpu", state_dir=tmp_path)
    request = EvalRequest(task=Task(name="t", source=ELEMENTWISE), source="", protocol=EvalProtocol())
    with pytest.raises(InfraError, match="not running"):
        await client.describe(request)
