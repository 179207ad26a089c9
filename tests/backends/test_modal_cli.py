"""`kbopt modal`, `kbopt doctor` and the library over the loopback plane, and how their faults are told."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable

import pytest

import kbopt.cli
from kbopt import Evaluator
from kbopt.backends.modal_client import container_status
from kbopt.core.evaluations import EvalRequest
from kbopt.core.outcomes import WrongAnswer
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.doctor import evaluations_step
from kbopt.simulated.backend import judge
from kbopt.simulated.kernels import to_source
from kbopt.simulated.landscapes import NUM_PARAMETERS
from tests.support.quick_task import TASK, wrong

Command = Callable[..., tuple[int, str, str]]

IN_A_PROCESS = """
import sys
from kbopt.cli import main
sys.argv = ["kbopt", *{arguments!r}]
main()
"""


@pytest.fixture
def kbopt_command(plane, monkeypatch, capsys) -> Command:
    """Runs a command in this process: its exit code, stdout and stderr."""
    monkeypatch.setenv("KBOPT_MODAL_DEVICE", "cpu")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kbopt", *arguments])
        code = 0
        try:
            kbopt.cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return run


def test_a_crew_of_two_is_warmed_ahead_shares_the_work_is_seen_and_stopped(plane, kbopt_command, tmp_path):
    crew = ("--gpu", "T4", "--gpus", "2", "--lane", "crew", "--warm-minutes", "4")
    before = plane.counters()
    code, said, progress = kbopt_command("modal", "deploy", *crew)
    assert (code, plane.counters()["cold_starts"]) == (0, before["cold_starts"] + 2), progress
    boots = re.search(r"warm: .*, boot (\w+), (\w+), up \d+ s", said).groups()
    assert "App deployed" in progress
    assert "if nobody uses it, at most $0.16 more" in said  # 2 x 240 s x 0.00033984 US dollars

    task, kernels = tmp_path / "affine.py", tmp_path / "kernels.jsonl"
    task.write_text(TASK.source)
    kernels.write_text("".join(json.dumps({"source": wrong(f"crew {number}")}) + "\n" for number in range(6)))
    candidates = ("--task", str(task), "--kernels", str(kernels))
    code, lines, errors = kbopt_command("eval", *candidates, "--backend", "modal", *crew)
    assert (code, lines.count('"outcome": "wrong_answer"')) == (0, 6), errors

    code, document, _ = kbopt_command("modal", "status", *crew, "--json")
    seen = json.loads(document)
    assert [one["info"]["boot"] for one in seen] == list(boots)
    assert [one["lane"] for one in seen] == ["crew", "crew-2"]
    assert [(one["num_containers"], one["backlog"]) for one in seen] == [(1, 0)] * 2
    shares = [one["info"]["num_evaluations"] for one in seen]
    assert (sum(shares), min(shares) > 0) == (6, True)
    _, text, _ = kbopt_command("modal", "status", *crew)
    assert re.search(
        rf"T4, lane crew: boot {boots[0]} on .*, up \d+ s, last used \d+ s ago, \d evaluations", text
    )

    # The shared lane and another warm time are other containers: none of theirs is up.
    for others in (("--warm-minutes", "4"), ("--lane", "crew", "--warm-minutes", "5")):
        _, text, _ = kbopt_command("modal", "status", "--gpu", "T4", *others)
        assert "no container, backlog 0" in text
    assert kbopt_command("modal", "stop", *crew)[:2] == (0, "stopped\n")
    assert kbopt_command("modal", "stop", "--all", "--warm-minutes", "4")[1] == "stopped\n"
    assert kbopt_command("modal", "stop", *crew)[1] == "there was nothing to stop\n"
    assert plane.counters()["cold_starts"] == before["cold_starts"] + 2


def test_doctor_says_at_which_step_it_failed_and_what_to_do(plane, kbopt_command):
    plane.set(unavailable_gpus=["H200"])
    code, said, progress = kbopt_command(
        "doctor", "--backend", "modal", "--gpu", "H200", "--start-timeout", "3"
    )
    assert code == 2
    assert [line[:6] for line in said.splitlines() if ". " in line[:9]] == ["ok   1", "ok   2", "FAIL 3"]
    assert "FAIL 3. open the backend: no H200 container for" in said
    assert "use --backend local" in said
    assert "backend waiting: no H200 container for" in progress  # already while it waited
    assert "Other GPUs to try: B200, H100, RTX-PRO-6000" in progress


def test_doctor_fails_where_the_container_was_replaced_between_the_evaluations():
    sources = (to_source((number,) * NUM_PARAMETERS) for number in range(2))
    task = Task(name="sim/smooth", source="sim/smooth")
    requests = [EvalRequest(task=task, source=source, protocol=EvalProtocol()) for source in sources]
    one, other = (judge(request, boot=f"boot{number}") for number, request in enumerate(requests))
    assert evaluations_step([one, one], "container").ok
    step = evaluations_step([one, other], "container")
    assert not step.ok
    assert "in 2 containers (boot0, boot1)" in step.detail
    assert "the container was lost in between" in step.remedy


def test_a_gpu_that_is_not_free_in_time_ends_with_the_exit_code_of_infrastructure(
    plane, kbopt_command, tmp_path
):
    plane.set(unavailable_gpus=["H200"])
    kernel = tmp_path / "kernel.py"
    kernel.write_text(wrong("never measured"))
    options = ("--backend", "modal", "--gpu", "H200", "--start-timeout", "1")
    code, said, complaint = kbopt_command("eval", "--task", "quick/gelu", "--kernel", str(kernel), *options)
    assert (code, said) == (3, "")
    assert "Gave up after --start-timeout 1 s" in complaint


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("modal", "status", "--gpu", "L50S"), "unknown GPU type 'L50S'. Did you mean L40S"),
        (("doctor", "--backend", "modal", "--gpu", "L50S"), "unknown GPU type 'L50S'. Did you mean L40S"),
        (("modal", "deploy", "--warm-minutes", "90"), "Modal allows 2 s to 60 minutes"),
        (("modal", "status", "--lane", "not a lane"), "lane 'not a lane': a name is 1 to 40 letters"),
        (("modal", "status", "--gpus", "65"), "--gpus"),
    ],
)
def test_what_the_user_must_change_ends_with_its_own_exit_code(kbopt_command, arguments, complaint):
    code, said, errors = kbopt_command(*arguments)
    assert code == 2
    assert complaint in said + errors


def test_a_run_without_a_token_says_so_before_it_makes_a_folder(kbopt_command, monkeypatch, tmp_path):
    for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"):
        monkeypatch.delenv(name)
    code, _, errors = kbopt_command("run", "--backend", "modal", "--out", str(tmp_path / "run"))
    assert code == 2
    assert "Run `modal token new`, or use --backend local" in errors
    assert not (tmp_path / "run").exists()


def test_a_wrong_token_ends_with_the_exit_code_of_users_mistakes(driver):
    program = IN_A_PROCESS.format(arguments=("modal", "status", "--gpu", "L4"))
    process = driver(program, MODAL_TOKEN_SECRET="as-wrong", MODAL_PROFILE="work")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Modal refused the token: Token ID is malformed or unknown" in errors
    assert "(work)" in errors


def test_the_library_leaves_the_container_warm_for_the_next(plane):
    boots = []
    for number in range(2):
        with Evaluator(backend="modal", gpu="L40S") as evaluator:
            result = evaluator.evaluate(TASK.source, wrong(f"library {number}"))
        assert isinstance(result.outcome, WrongAnswer)
        boots.append(result.boot)
    assert boots == [container_status("L40S").info.boot] * 2
