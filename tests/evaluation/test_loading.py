"""Tasks and candidates are modules as python's own import makes them."""

import inspect
import sys
from pathlib import Path

import pytest
import torch

from kbopt.core.types import EvalProtocol, Measured
from kbopt.evaluation.judge.reference import Reference, TaskError
from kbopt.evaluation.kernelbench import protocol
from kbopt.evaluation.kernelbench.loading import load_module, load_task_module
from kbopt.evaluation.worker.candidate import CandidateError, check_syntax, load_candidate
from tests.evaluation.conftest import Bench

ENDS = "\n\ndef get_inputs():\n    return [torch.randn(64, 256)]\n\n\ndef get_init_inputs():\n    return []\n"
ANNOTATED = """from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch


@dataclass
class Config:
    scale: float = 2.0
    parts: list[int] = field(default_factory=list)


class {name}(torch.nn.Module):
    def forward(self, x):
        return Config().scale * torch.tanh(x)
"""
SCRIPTED = """import warnings

import torch

warnings.simplefilter("ignore")


@torch.jit.script
def double(x):
    y = x * 2
    return torch.tanh(y)


class {name}(torch.nn.Module):
    def forward(self, x):
        return double(x)
"""
READS_ITSELF = """import inspect

import torch


def double(x):
    return torch.tanh(x) * 2  # by 2


FACTOR = int(inspect.getsource(double).split("by ")[1])


class {name}(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x) * FACTOR
"""
PICKLES = """import copy
import enum
import pickle

import torch


class Kind(enum.Enum):
    DOUBLE = 2


class Scale:
    def __init__(self):
        self.by = Kind.DOUBLE


SCALE = pickle.loads(pickle.dumps(Scale()))


class {name}(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x) * pickle.loads(pickle.dumps(copy.deepcopy(SCALE))).by.value
"""
PLAIN = """import torch


class {name}(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x) * 3
"""
MARKED = "\ufeff" + PLAIN
WINDOWS = PLAIN.replace("\n", "\r\n")
KINDS = {
    "annotated": ANNOTATED,
    "scripted": SCRIPTED,
    "reads itself": READS_ITSELF,
    "pickles": PICKLES,
    "marked": MARKED,
    "windows": WINDOWS,
}


@pytest.mark.parametrize("text", KINDS.values(), ids=KINDS)
def test_a_task_runs_as_python_runs_it(text: str):
    reference = Reference(text.format(name="Model") + ENDS, EvalProtocol(), torch.device("cpu"), 0)

    output = reference.run(reference.draw(1).arguments())

    assert output.tensors[0].shape == (64, 256)
    assert protocol.load_task(text.format(name="Model") + ENDS).model is not None


@pytest.mark.parametrize("text", KINDS.values(), ids=KINDS)
def test_so_does_a_candidate(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    module = load_candidate(text.format(name="ModelNew"))

    assert module.ModelNew()(torch.ones(2, 2)).shape == (2, 2)
    assert sys.modules["candidate"] is module
    assert module.__file__ == str(tmp_path / "candidate.py")
    assert "def forward" in inspect.getsource(module.ModelNew)


@pytest.mark.parametrize("kind", ["annotated", "scripted", "pickles", "marked"])
def test_both_verdicts_take_such_a_task_and_such_a_candidate(kind: str, bench: Bench):
    text = KINDS[kind]

    result = bench.judge(
        text.format(name="ModelNew"), task=text.format(name="Model") + ENDS, kernelbench=True
    )

    assert isinstance(result.outcome, Measured), result.outcome
    assert result.kernelbench.correctness, result.kernelbench.metadata


def test_lines_of_a_task_are_known_when_its_file_is_gone():
    module = load_task_module("def f():\n    return 1\n")

    assert not Path(module.__file__).exists()
    assert inspect.getsource(module.f) == "def f():\n    return 1\n"
    assert list(Path(module.__file__).parent.parent.glob("kbopt-task-*/task.py")) == []


def test_a_second_module_of_one_name_has_its_own_lines(tmp_path: Path):
    load_module("candidate", "def f():\n    return 1\n", tmp_path)

    module = load_module("candidate", "def f():\n    return 22\n", tmp_path)

    assert inspect.getsource(module.f) == "def f():\n    return 22\n"


@pytest.mark.parametrize("source", ["x = '\udc80'\n", "x = 1\0\n", "\ufeff\ufeffx = 1\n", "(" * 5000])
def test_a_source_that_is_none_is_refused_with_words(source: str):
    with pytest.raises(CandidateError):
        check_syntax(source)
    with pytest.raises(TaskError, match="cannot be loaded"):
        Reference(source, EvalProtocol(), torch.device("cpu"), 0)
