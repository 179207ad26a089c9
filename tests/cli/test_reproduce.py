"""A run is measured again as it was measured, from its folder or from its page alone."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from kbopt.cli import app
from kbopt.cli.eval import as_the_run, evaluate
from kbopt.config import BackendConfig, RunConfig
from kbopt.core import codec
from kbopt.core.errors import UserError
from kbopt.core.protocol import EvalProtocol
from kbopt.finish import load, open_run
from kbopt.store.journal import SqliteJournal
from tests.support.journals import GELU, entries, settings

CONFIG = RunConfig(
    name="first",
    task=GELU,
    settings=settings(),
    protocol=EvalProtocol(timed=40, torch_ops="forbid", arithmetic="tf32"),
    backend=BackendConfig(name="modal", gpu="H100", lane="mine"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path, CONFIG)


def made(folder: Path, config: RunConfig, correct: bool = True) -> Path:
    journal = SqliteJournal.create(folder / "journal.sqlite", codec.dumps(config))
    for entry in entries(10, correct=correct):
        journal.append(entry.event)
    journal.close()
    return folder


def given(*words: str) -> dict[str, object]:
    """What `kbopt eval` takes from these words and, with --run, from the run's journal."""
    with evaluate.make_context("eval", list(words)) as context:
        if context.params["run"] is None:
            return context.params
        return as_the_run(context, load(context.params["run"]), context.params)


def test_a_run_names_its_protocol_and_its_backend(folder: Path):
    params = given("--run", str(folder))
    assert (params["timed"], params["torch_ops"], params["arithmetic"]) == (40, "forbid", "tf32")
    assert (params["backend"], params["gpu"], params["lane"]) == ("modal", "H100", "mine")


def test_what_the_command_line_says_wins(folder: Path):
    params = given("--backend", "local", "--timed", "20", "--run", str(folder))
    assert (params["backend"], params["timed"], params["torch_ops"]) == ("local", 20, "forbid")


def test_the_run_says_the_commands(folder: Path):
    with open_run(folder) as run:
        pass
    assert run.reproduce == f"kbopt eval --run {folder}"
    assert run.reproduce_elsewhere == (
        "kbopt eval --task quick/gelu --kernel best.py --backend modal --gpu H100 --timed 40 "
        "--torch-ops forbid --arithmetic tf32"
    )
    params = given(*shlex.split(run.reproduce_elsewhere)[2:])
    assert {name: params[name] for name in ("backend", "gpu", "timed", "torch_ops", "arithmetic")} == {
        "backend": "modal",
        "gpu": "H100",
        "timed": 40,
        "torch_ops": "forbid",
        "arithmetic": "tf32",
    }


def test_a_run_without_a_correct_kernel_has_nothing_to_judge_again(tmp_path: Path):
    folder = made(tmp_path, replace(CONFIG, backend=BackendConfig()), correct=False)
    with pytest.raises(UserError, match="no correct kernel"):
        app(["eval", "--run", str(folder)], standalone_mode=False)


def test_a_run_and_a_task_are_one_too_many(folder: Path):
    with pytest.raises(UserError, match="leave out --task"):
        app(["eval", "--run", str(folder), "--task", "quick/gelu"], standalone_mode=False)
