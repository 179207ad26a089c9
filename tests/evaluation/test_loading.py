"""Tasks and candidates are modules as python's own import makes them."""

import inspect
import sys
from pathlib import Path

import pytest
import torch

from kbopt.core.outcomes import Measured
from kbopt.core.protocol import EvalProtocol
from kbopt.evaluation.judge.reference import Reference
from kbopt.evaluation.judge.task_code import TaskError
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

    assert inspect.getsource(module.f) == "def f():\n    return 1\n"
    assert not Path(module.__file__).parent.exists()


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


def task_of(
    init: str = "", inputs: str = "return [torch.randn(4, 4)]", given: str = "[]", ends: str = ""
) -> str:
    return (
        "import torch\n\n\nclass Model(torch.nn.Module):\n"
        f"    def __init__(self, dim=1):\n        {init or 'super().__init__()'}\n\n"
        "    def forward(self, x):\n        return torch.tanh(x)\n\n\n"
        f"def get_inputs():\n    {inputs}\n\n\ndef get_init_inputs():\n    return {given}\n{ends}"
    )


SUPER = "super().__init__(); "


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (task_of(ends="raise SystemExit(0)\n"), "cannot be loaded: SystemExit: 0"),
        (task_of(ends="import argparse\nargparse.ArgumentParser().parse_args(['--n'])\n"), "SystemExit: 2"),
        (task_of(ends="from . import helpers\n"), "cannot be loaded: ImportError"),
        (task_of(given="None"), r"get_init_inputs\(\) raised TypeError"),
        (task_of(given="[[], {'dim': 1}]"), r"Model\(\*get_init_inputs\(\)\) raised TypeError"),
        (task_of(init="pass"), r"Model\(\*get_init_inputs\(\)\) raised AttributeError"),
        (task_of(init=SUPER + "raise SystemExit(3)"), "raised SystemExit: 3"),
        (task_of(init=SUPER + "self.l = torch.nn.LazyLinear(4)"), "raised ValueError: .*uninitialized"),
        (task_of(init=SUPER + "self.l = torch.nn.Linear(4, 4, device='meta')"), "Cannot copy out of meta"),
        (task_of(inputs="return None"), r"get_inputs\(\) raised TypeError"),
        (task_of(inputs="yield torch.ones(4); raise ValueError('late')"), "raised ValueError: late"),
        (task_of(inputs="held = []; held.append(held); return held"), "gives a value that holds itself"),
    ],
)
def test_whatever_a_task_does_before_its_first_call_is_its_own_fault(source: str, said: str):
    with pytest.raises(TaskError, match=said):
        Reference(source, EvalProtocol(), torch.device("cpu"), 0).draw(1)


@pytest.mark.parametrize(
    "held", ["torch.nn.utils.weight_norm(torch.nn.Linear(4, 4))", "__import__('threading').Lock()"]
)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_model_that_cannot_be_copied_is_made_again(held: str):
    source = task_of(init=SUPER + f"self.held = {held}")

    reference = Reference(source, EvalProtocol(), torch.device("cpu"), 0)

    for name, tensor in reference.exact.state_dict().items():
        assert torch.equal(tensor, reference.model.state_dict()[name].double())


def test_inputs_may_hold_what_is_no_number(bench: Bench):
    drawn = "x = torch.randn(64, 256); x[:, ::7] = float('nan'); return [x]"
    task = task_of(inputs=drawn).replace("torch.tanh(x)", "torch.nan_to_num(x) * 2")

    result = bench.judge(task.replace("class Model(", "class ModelNew("), task=task)

    assert isinstance(result.outcome, Measured), result.outcome
