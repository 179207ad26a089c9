"""The scripted search that command-line tests run: its kernels are real ones, in answers of every form."""

from __future__ import annotations

import runpy
from pathlib import Path

import torch

import kbopt.tasks
from kbopt.proposers.answers import Malformed, NewSource, read_answer
from tests.support.openai_server import Answer
from tests.support.softmax_script import SCRIPT, SEED


def test_the_scripted_answers_are_right_kernels_but_for_one_without_code(tmp_path: Path) -> None:
    task = runpy.run_path(str(Path(kbopt.tasks.__file__).parent / "sources/quick/softmax.py"))
    (x,), settings = task["get_inputs"](), task["get_init_inputs"]()
    expected = task["Model"](*settings)(x)
    _, *answers = [behaviour for behaviour in SCRIPT.behaviours if isinstance(behaviour, Answer)]
    verdicts = [read_answer(answer.text, SEED if "SEARCH" in answer.text else None) for answer in answers]
    assert [type(verdict) for verdict in verdicts] == [NewSource, Malformed, NewSource, NewSource, NewSource]
    for number, verdict in enumerate(verdicts):
        if isinstance(verdict, NewSource):
            file = tmp_path / f"kernel{number}.py"
            file.write_text(verdict.source)
            actual = runpy.run_path(str(file))["ModelNew"](*settings)(x)
            torch.testing.assert_close(actual, expected)
