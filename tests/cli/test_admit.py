"""`kbopt tasks --admit`: a line for each task of a checkout, kept in a file, whatever becomes of a task."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from kbopt.cli.admit import HEADER, Line, Lost, parsed, problems_of
from kbopt.cli.tasks import tasks
from kbopt.compose import backends
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import Admitted, EvalRequest, Refused, TaskReport
from kbopt.core.ports import BackendStatus
from kbopt.core.protocol import EvalProtocol
from tests.cli.test_run import kbopt

SOURCE = """
import torch

class Model(torch.nn.Module):
    def forward(self, x):
        return {forward}

def get_inputs():
    return [torch.rand(64, 128)]

def get_init_inputs():
    return []
"""
ADMITTED = Admitted(
    device="test",
    seconds=1.25,
    reference_ms=0.5,
    floor_ms=0.25,
    reference_ops_ms=0.125,
    device_bytes=2**31,
    host_bytes=2**30,
    inputs_bytes=2**20,
    outputs_bytes=2**20,
    tolerance=1e-4,
    keeps_state=False,
)
REFUSED = Refused(device="test", seconds=1.0, test="zeros", reason="admission test 'zeros' failed: \x1b[2J")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    forwards = {
        "level1/1_Tanh.py": "torch.tanh(x) * 2 + x",
        "level1/2_ReLU.py": "torch.relu(x)",
        "level2/10_Dropout.py": "torch.dropout(x.tanh(), 0.5, self.training)",
    }
    for name, forward in forwards.items():
        path = tmp_path / "KernelBench" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SOURCE.format(forward=forward))
    (tmp_path / "KernelBench" / "level2" / "11_Broken.py").write_text("class Model: ...")
    return tmp_path


@pytest.mark.slow
def test_each_task_gets_a_line_and_what_is_known_is_not_done_again(checkout: Path, tmp_path: Path) -> None:
    out = tmp_path / "admitted.jsonl"
    command = ("tasks", "--kernelbench", checkout, "--admit", "--device", "cpu", "--out", out)
    done = kbopt(*command, "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines == [json.loads(line) for line in out.read_text().splitlines()]
    told = {line["task"]: (line["outcome"], line.get("test")) for line in lines}
    assert told == {
        "level1/1": ("scorable", None),
        "level1/2": ("refused", "copy of an input"),
        "level2/10": ("refused", "deterministic"),
        "level2/11": ("refused", ""),
    }
    assert "level2/11 defines no get_inputs" in lines[3]["reason"]
    assert lines[0]["inputs_bytes"] == 32768
    assert "[4/4] level2/11" in done.stderr
    assert "4 tasks: 1 scorable, 3 refused" in done.stderr

    whole = out.read_text()
    out.write_text(whole + '{"torn')
    again = kbopt(*command)
    assert again.returncode == 0, again.stderr
    header, *rows = again.stdout.splitlines()
    assert header == HEADER
    assert rows[0].split()[:2] == ["level1/1", "scorable"]
    assert float(rows[0].split()[2]) == pytest.approx(lines[0]["reference_ms"], rel=1e-3)
    assert "--eval-mode judges it" in rows[2]
    assert out.read_text() == whole + '{"torn\n'

    in_eval = kbopt(*command, "--levels", "2", "--eval-mode", "--json")
    assert [json.loads(line)["outcome"] for line in in_eval.stdout.splitlines()] == ["scorable", "refused"]


class ScriptedDevice:
    """A local backend whose `reports` are given out in turn; an exception is raised."""

    def __init__(self, *reports: TaskReport | Exception) -> None:
        self.asked: list[str] = []
        self._reports = list(reports)

    async def open(self) -> BackendStatus:
        return await self.status()

    async def status(self) -> BackendStatus:
        return BackendStatus(state="warm", device="test", boot="b", age_s=0.0)

    async def describe(self, request: EvalRequest) -> TaskReport:
        self.asked.append(request.task.name)
        report = self._reports.pop(0)
        if isinstance(report, Exception):
            raise report
        return report

    async def close(self) -> None: ...


def test_a_machine_that_fails_is_a_line_the_others_go_on_and_it_is_asked_again(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "admitted.jsonl"
    command = ["--kernelbench", str(checkout), "--admit", "--device", "cpu", "--out", str(out)]
    first = ScriptedDevice(InfraError("the GPU fell off the bus"), ADMITTED, REFUSED)
    monkeypatch.setattr(backends, "open_local", lambda _: first)
    done = CliRunner().invoke(tasks, command)
    assert done.exit_code == 3
    rows = done.stdout.splitlines()
    assert rows[1].split(maxsplit=2) == ["level1/1", "error", "the GPU fell off the bus"]
    assert rows[2].split() == ["level1/2", "scorable", "0.5", "0.25", "2.00", "1.00", "1.2"]
    assert rows[3] == "level2/10   refused   admission test 'zeros' failed: \\x1b[2J"
    assert "4 tasks: 1 scorable, 2 refused (1 zeros, 1 other), 1 error" in done.stderr

    second = ScriptedDevice(ADMITTED)
    monkeypatch.setattr(backends, "open_local", lambda _: second)
    done = CliRunner().invoke(tasks, command)
    assert done.exit_code == 0
    assert second.asked == ["level1/1"]
    changed = checkout / "KernelBench" / "level1" / "2_ReLU.py"
    changed.write_text(SOURCE.format(forward="torch.relu(x - 0.5)"))
    third = ScriptedDevice(ADMITTED)
    monkeypatch.setattr(backends, "open_local", lambda _: third)
    assert CliRunner().invoke(tasks, command).exit_code == 0
    assert third.asked == ["level1/2"]


@pytest.mark.parametrize("report", [ADMITTED, REFUSED, Lost(reason="no power")])
def test_a_line_is_read_as_it_was_written(report: Admitted | Refused | Lost) -> None:
    line = Line(task="level1/1", key="k", torch="2.13", protocol=EvalProtocol().rules, report=report)
    assert parsed(json.loads(json.dumps(line.document))) == line


@pytest.mark.parametrize("document", [{}, {"outcome": "measured"}, {"outcome": "refused"}, {"outcome": []}])
def test_a_line_of_another_command_is_left_alone(document: dict[str, object]) -> None:
    assert parsed({"task": "t", "key": "k", "torch": "2", "protocol": "p", **document}) is None


def test_levels_that_are_not_there_are_named(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [problem.name for problem in problems_of(checkout, "2")] == ["level2/10", "level2/11"]
    with pytest.raises(UserError, match=r"there is no level '9'\. Allowed: 1, 2, 3, 4"):
        problems_of(checkout, "1,9")
    with pytest.raises(UserError, match="has no problems of these; it has level 1, 2"):
        problems_of(checkout, "3")
    monkeypatch.delenv("KBOPT_KERNELBENCH", raising=False)
    with pytest.raises(UserError, match="--admit needs a checkout: give --kernelbench DIR"):
        problems_of(None, "1")


def test_options_of_admission_without_it_are_refused() -> None:
    done = CliRunner().invoke(tasks, ["--levels", "1"])
    assert isinstance(done.exception, UserError)
    assert str(done.exception) == "--levels goes with --admit"
