"""`kbopt export`: a file that says where its kernel comes from and that it computes no gradients."""

from __future__ import annotations

import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from kbopt.cli.runs import export, report
from kbopt.config import RunConfig
from kbopt.core import codec
from kbopt.core.events import Evaluated, Event, Proposed
from kbopt.core.outcomes import Audit, Measured
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.evaluation.kernelbench.signature import describe_inputs
from kbopt.finish import open_run
from kbopt.reporting.summary import summarize
from kbopt.store.journal import SqliteJournal
from tests.support.journals import GELU, entries, settings

ITS_FORWARD = "return torch.from_numpy(x.detach().numpy() @ self.a.weight.detach().numpy())"
SOURCE = f'''"""Half of a layer."""
from __future__ import annotations

import torch


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Linear(3, 3)

    def forward(self, x, extra=None):
        {ITS_FORWARD}
'''


def run_folder(tmp_path: Path, *, custom_kernel: bool = True, backward: bool = False) -> Path:
    """A run whose candidates are all `SOURCE`."""
    protocol = EvalProtocol(backward=backward)
    config = RunConfig(name="a-run", task=GELU, settings=settings(), protocol=protocol)
    with SqliteJournal.create(tmp_path / "journal.sqlite", codec.dumps(config)) as journal:
        for entry in entries(30):
            journal.append(as_source(entry.event, custom_kernel=custom_kernel))
    return tmp_path


def as_source(event: Event, *, custom_kernel: bool) -> Event:
    """The event of a candidate that is `SOURCE`."""
    if isinstance(event, Proposed):
        return Proposed(candidate=replace(event.candidate, source=SOURCE))
    if isinstance(event, Evaluated) and isinstance(event.result.outcome, Measured):
        audited = replace(event.result.outcome, audit=Audit(custom_kernel=custom_kernel))
        return replace(event, result=replace(event.result, outcome=audited))
    return event


def exported(*arguments: object) -> Result:
    return CliRunner().invoke(export, list(map(str, arguments)))


def loaded(text: str) -> torch.nn.Module:
    module = types.ModuleType("exported")
    exec(compile(text, "exported.py", "exec"), module.__dict__)
    return module.ModelNew()


def test_the_file_says_where_the_kernel_comes_from(tmp_path: Path):
    folder = run_folder(tmp_path / "runs" / "a-run")
    out = tmp_path / "kernel.py"
    assert exported(folder, "--out", out).exit_code == 0
    text = out.read_text()
    with open_run(folder) as run:
        best = summarize(run).best
    header = text[: text.index('"""')]
    assert all(line.startswith("#") for line in header.splitlines() if line)
    for words in (
        f"{folder}, candidate {best.candidate}",
        "the task quick/gelu",
        "float32[4096, 8192]",
        f"{best.speedup:.2f}x over eager PyTorch, 95 % interval {best.speedup_ci[0]:.2f} to",
        f"{best.kernel_ms:.4g} ms instead of {best.reference_ms:.4g} ms",
        best.device,
        best.protocol,
        f"torch {torch.__version__.split('+')[0]}",
        "forward only",
    ):
        assert words in header
    assert SOURCE in text


def test_a_report_takes_the_place_of_a_page_alone(tmp_path: Path):
    folder, out = run_folder(tmp_path / "runs" / "a-run"), tmp_path / "page.html"
    for _ in range(2):
        assert CliRunner().invoke(report, [str(folder), "--out", str(out)]).exit_code == 0
    out.write_text(SOURCE)
    refused = CliRunner().invoke(report, [str(folder), "--out", str(out)])
    assert f"--out {out} exists and is no page of HTML" in str(refused.exception)
    assert out.read_text() == SOURCE


def test_gradients_are_refused_and_not_cut(tmp_path: Path):
    model = loaded(exported(run_folder(tmp_path)).stdout)
    x = torch.ones(2, 3)
    with pytest.raises(RuntimeError, match="computes the forward pass only"):  # its weights require grad
        model(x)
    with torch.no_grad():
        assert model(x).shape == (2, 3)
    model.requires_grad_(False)
    assert model(x).shape == (2, 3)
    wanting = torch.ones(2, 3, requires_grad=True)
    for inputs in ((wanting,), (x, wanting), (x, [{"a": (wanting,)}])):
        with pytest.raises(RuntimeError, match="requires grad"):
            model(*inputs)
    with pytest.raises(RuntimeError, match="requires grad"):
        model(x, extra=wanting)


def test_a_candidate_of_pytorchs_own_operators_has_no_guard(tmp_path: Path):
    text = exported(run_folder(tmp_path, custom_kernel=False)).stdout
    assert "no custom kernel" in text
    assert "forward only" not in text
    assert loaded(text)(torch.ones(2, 3)).shape == (2, 3)


def test_a_kernel_that_was_judged_with_its_backward_has_no_guard(tmp_path: Path):
    text = exported(run_folder(tmp_path, backward=True)).stdout
    assert "forward only" not in text
    assert "# forward and backward: it was judged on its gradients too" in text
    model = loaded(text.replace(ITS_FORWARD, "return self.a(x)"))
    model(torch.ones(2, 3)).sum().backward()
    assert model.a.weight.grad.tolist() == [[2.0] * 3] * 3


def test_inputs_are_described_without_their_memory():
    source = "import torch\nclass Model: ...\ndef get_init_inputs(): return []\n"
    huge = f"{source}def get_inputs(): return [torch.rand(1 << 40), [torch.zeros(2, dtype=torch.int64)], 3]"
    assert describe_inputs(huge) == "float32[1099511627776], int64[2], 3"
    assert describe_inputs(f"{source}def get_inputs(): raise ValueError") == ""
    assert describe_inputs(Task(name="sim/smooth", source="levels").source) == ""
