"""`kbopt eval --kernels`: what is read, what counts as known, what becomes of one that cannot be judged."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kbopt.cli.batch import _may_be_mended as line_may_be_mended
from kbopt.cli.batch import known as known_lines
from kbopt.cli.eval import _items, read_kernel
from kbopt.cli.json_lines import appending, check_lines
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.evaluation.sandbox.memory import REMEDY
from kbopt.tasks import load_task
from tests.cli.test_eval import GOOD, TASK, WRONG
from tests.cli.test_run import kbopt

PROTOCOL = EvalProtocol()
LINE = {
    "key": "k",
    "outcome": "measured",
    "speedup": 2.0,
    "speedup_ci": [1.9, 2.1],
    "protocol": PROTOCOL.id,
    "device": "cpu",
    "torch": "2.13",
}
RAISES = TASK.replace("torch.tanh(x)", "x.no_such_method()")


def known(out: Path, protocol: EvalProtocol = PROTOCOL, device: str = "cpu", torch: str = "2.13") -> set[str]:
    return set(known_lines(out, {"k": protocol, "slow": protocol}, device, torch))


def test_a_result_is_known_only_for_the_same_device_torch_and_protocol(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(json.dumps(LINE) + '\n{"key": "torn", "outco')
    assert known(out) == {"k"}
    assert known(out, device="NVIDIA H100") == set()
    assert known(out, torch="2.14") == set()
    assert known(out, replace(PROTOCOL, precision="fp16")) == set()
    assert known_lines(out, {"another": PROTOCOL}, "cpu", "2.13") == {}


def test_where_the_device_is_not_known_yet_the_last_line_tells_it(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    lines = (LINE, {**LINE, "key": "slow", "device": "NVIDIA H100"}, {"key": "lost", "outcome": None})
    out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert known(out, device="") == {"slow"}


@pytest.mark.parametrize("text", ["", '{"key": "torn', '\n{"key": "k"}\n'])
def test_lines_are_appended_to_lines(text: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    check_lines(out)
    out.write_text(text)
    check_lines(out)


def test_lines_are_not_appended_to_a_file_of_another_kind(tmp_path: Path) -> None:
    out = tmp_path / "kernel.py"
    out.write_text("import torch\n")
    done = kbopt("eval", "--task", "quick/gelu", "--kernels", tmp_path, "--out", out)
    assert done.returncode == 2
    assert f"--out {out} exists and holds no JSON lines" in done.stderr
    assert out.read_text() == "import torch\n"


@pytest.mark.parametrize("limit", ["timeout_s", "compile_timeout_s"])
def test_only_what_timed_out_is_judged_again_with_other_limits(limit: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    lines = (LINE, {**LINE, "key": "slow", "outcome": "timed_out"})
    out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert known(out) == {"k", "slow"}
    assert known(out, replace(PROTOCOL, **{limit: 1000.0})) == {"k"}


def test_a_line_without_baselines_is_known_only_where_none_are_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(json.dumps({**LINE, "baselines": False}) + "\n")
    assert known(out) == set()
    assert known_lines(out, {"k": PROTOCOL}, "cpu", "2.13", baselines=False).keys() == {"k"}


def test_what_the_backend_refused_is_known_where_refusals_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(json.dumps({**LINE, "outcome": None, "refused": True}) + "\n")
    assert known(out) == set()
    assert known_lines(out, {"k": PROTOCOL}, "cpu", "2.13", refusals=True).keys() == {"k"}
    assert known_lines(out, {"k": PROTOCOL}, "gpu", "2.13", refusals=True) == {}


def test_a_line_that_was_not_judged_is_not_known(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(json.dumps({**LINE, "outcome": None}) + "\n[1]\n")
    assert known(out) == set()


NEEDS = """import importlib
import os

import torch

part = importlib.import_module("json" if os.environ.get("LC_ALL") == "C.UTF-8" else "kbopt_probe")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x).mul_(2.0).add_(1.0)
"""


@pytest.mark.slow
def test_what_failed_for_the_machine_is_judged_again_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package is missing; in another locale the source does without it, as if it were installed."""
    (tmp_path / "task.py").write_text(TASK)
    lines = {"good": GOOD, "needs": NEEDS, "broken": GOOD.replace("class", "clas"), "wrong": WRONG}
    sources = [json.dumps({"id": name, "source": source}) for name, source in lines.items()]
    (tmp_path / "in.jsonl").write_text("\n".join(sources))
    out = tmp_path / "out.jsonl"
    command = ("eval", "--task", tmp_path / "task.py", "--kernels", tmp_path / "in.jsonl", "--out", out)
    monkeypatch.setenv("KBOPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LC_ALL", "C")
    first = kbopt(*command, "--timed", 20, "--trials", 2)
    assert "4 of 4 candidates done" in first.stderr
    again = kbopt(*command, "--timed", 20, "--trials", 2)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    second = kbopt(*command, "--timed", 20, "--trials", 2)
    third = kbopt(*command, "--timed", 20, "--trials", 2)

    for one in (again, second):
        assert "4 candidates, 3 judged before" in one.stderr
        assert "1 more failed then, perhaps for want of a header, a package or memory" in one.stderr
    assert "4 candidates, 4 judged before" in third.stderr
    assert "judged again" not in first.stderr + third.stderr
    judged = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted((line["candidate"], line["outcome"]) for line in judged) == [
        ("broken", "compile_failed"),
        ("good", "measured"),
        ("needs", "compile_failed"),
        ("needs", "measured"),
        ("wrong", "wrong_answer"),
    ]


@pytest.mark.parametrize(
    ("more", "mended"),
    [
        ({}, False),
        ({"outcome": "compile_failed"}, False),
        ({"outcome": "compile_failed", "may_be_mended": True}, True),
        ({"outcome": None, "refused": True, "reason": f"needs 9 GiB; {REMEDY}"}, True),
        ({"outcome": None, "refused": True, "reason": "admission test 'zeros' failed"}, False),
    ],
)
def test_a_line_may_be_mended_that_said_so_or_lacked_memory(more: dict[str, object], mended: bool) -> None:
    assert line_may_be_mended({**LINE, **more}) is mended


def test_a_torn_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    for before, after in (("", "new"), ("whole\n", "whole\nnew"), ("torn", "torn\nnew")):
        out.write_text(before)
        with appending(out) as sink:
            sink.write("new")
        assert out.read_text() == after


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0c", "\x1c"])
def test_json_lines_end_at_line_feeds_alone(separator: str, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    lines = [json.dumps({"source": f"x = '{separator}'"}, ensure_ascii=separator < " ") for _ in range(2)]
    path.write_text("\r\n".join(lines) + "\n", encoding="utf-8")
    items = list(_items(path, Task(name="t", source="t"), None))
    assert [item.source for item in items] == [f"x = '{separator}'"] * 2


def test_files_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    kernel, task = tmp_path / "kernel.py", tmp_path / "task.py"
    kernel.write_text("\ufeff" + GOOD, encoding="utf-8")
    task.write_text("\ufeff" + TASK, encoding="utf-8")
    assert read_kernel(kernel, load_task(str(task))) == GOOD
    assert load_task(str(task)).source == TASK
    lines = tmp_path / "in.jsonl"
    lines.write_text("\ufeff" + json.dumps({"source": "\ufeff" + GOOD}), encoding="utf-8")
    assert [item.source for item in _items(lines, load_task(str(task)), None)] == [GOOD]


def test_a_kernel_without_a_task_is_told_what_a_task_is(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel.py"
    kernel.write_text(GOOD)
    done = kbopt("eval", "--kernel", kernel)
    assert done.returncode == 2
    assert "needs --task" in done.stderr
    assert "`kbopt tasks`" in done.stderr
    done = kbopt("eval", "--task", "quick/gelu", "--kernel", tmp_path)
    assert "--kernels judges all of its .py files" in done.stderr


@pytest.mark.slow
def test_what_cannot_be_judged_gets_a_line_and_the_others_go_on(tmp_path: Path) -> None:
    good, bad, out = tmp_path / "good.py", tmp_path / "bad.py", tmp_path / "out.jsonl"
    good.write_text(TASK)
    bad.write_text(RAISES)
    lines = [
        {"id": "a", "task": str(good), "source": GOOD},
        {"id": "raises", "task": str(bad), "source": GOOD},
        {"id": "unknown", "task": "quick/gelo", "source": GOOD},
        {"id": "c", "task": str(good), "source": GOOD.replace("class", "class class")},
    ]
    batch = tmp_path / "in.jsonl"
    batch.write_text("\n".join(map(json.dumps, lines)))
    arguments = ("eval", "--kernels", batch, "--out", out, "--device", "cpu", "--timed", 20)
    done = kbopt(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    judged = {line["candidate"]: line for line in map(json.loads, out.read_text().splitlines())}
    assert judged.keys() == {"a", "raises", "unknown", "c"}
    assert judged["c"]["outcome"] == "compile_failed"
    assert judged["raises"]["outcome"] is None
    assert "no_such_method" in judged["raises"]["reason"]
    assert "quick/gelu" in judged["unknown"]["reason"]
    assert "4 of 4 candidates done: " in done.stderr
    assert "2 not judged" in done.stderr
    again = kbopt(*arguments)
    assert "4 candidates, 2 judged before" in again.stderr


def test_a_name_cannot_write_lines_of_its_own_on_the_terminal(tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    name = "k\x1b]0;evil\x07\u202e\n[9/9] best: measured, 99.00x" + "x" * 5000
    lines.write_text(json.dumps({"id": name, "source": "class ModelNew: pass", "task": "quick/gelu"}) + "\n")
    done = kbopt("eval", "--kernels", lines, "--device", "cpu", "--out", tmp_path / "out.jsonl")
    (line,) = (line for line in done.stderr.splitlines() if "evil" in line)
    assert line.startswith("[1/1] k")
    assert len(line) < 500
    assert not set("\x1b\x07\u202e") & set(done.stderr)
