"""Floats of 8 bits, integers of 8 bits, and tasks of several precisions."""

from __future__ import annotations

import random

import pytest
import torch

from kbopt.core.protocol import EvalProtocol, Precision
from kbopt.evaluation.judge import values
from kbopt.evaluation.judge.admission import admit
from kbopt.evaluation.judge.kinds import KINDS, Contract
from kbopt.evaluation.judge.reference import Reference
from kbopt.evaluation.judge.task_code import TaskError
from kbopt.evaluation.numerics import placed, placed_model

CPU = torch.device("cpu")
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


def reference_of(forward: str, inputs: str, head: str = "", precision: Precision = "fp32") -> Reference:
    source = f"""
import torch
{head}
class Model(torch.nn.Module):
    def forward(self, a, b): return {forward}
def get_inputs(): return [{inputs}]
def get_init_inputs(): return []
"""
    return Reference(source, EvalProtocol(precision=precision), CPU, weight_seed=1)


FLOAT8 = "torch.randn(32, 64).to(torch.float8_e4m3fn), torch.randn(64, 32).to(torch.float8_e5m2)"
INT8 = ", ".join(f"torch.randint(-128, 128, {shape}, dtype=torch.int8)" for shape in ("(32, 64)", "(64, 8)"))
BF16 = "torch.randn(32, 64).bfloat16(), torch.randn(64, 32)"


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_floats_of_8_bits_are_no_matter_of_the_precision(dtype: torch.dtype, precision: Precision) -> None:
    assert placed(torch.ones(4).to(dtype), precision, CPU).dtype == dtype
    model = torch.nn.Linear(2, 2)
    model.register_buffer("quantised", torch.ones(4).to(dtype))
    moved = placed_model(model, precision, CPU)
    wanted = placed(torch.ones(4), precision, CPU).dtype
    assert (moved.weight.dtype, moved.quantised.dtype) == (wanted, dtype)


def test_a_task_that_keeps_dtypes_is_given_what_it_draws() -> None:
    mixed = reference_of("a.float() @ b", BF16, "KEEPS_DTYPES = True")
    assert [t.dtype for t in mixed.draw(1).tensors] == [torch.bfloat16, torch.float32]
    cast = reference_of("a.float() @ b", BF16)
    assert [t.dtype for t in cast.draw(1).tensors] == [torch.float32, torch.float32]


@pytest.mark.parametrize(
    ("forward", "inputs", "head", "kinds"),
    [
        ("a.float() @ b.float()", FLOAT8, "", {"small", "large", "ties", "sorted", "mostly_zero"}),
        ("(a.float() @ b.float() / 64).to(torch.float8_e5m2)", FLOAT8, "", {"small", "large"}),
        ("a.int() @ b.int()", INT8, "", set()),
        ("a.float() @ b", BF16, "KEEPS_DTYPES = True", {"small", "large", "extremes"}),
    ],
)
def test_such_a_task_is_admitted_and_tried_on_other_values(
    forward: str, inputs: str, head: str, kinds: set[str]
) -> None:
    reference = reference_of(forward, inputs, head)
    contract = admit(reference).contract
    draw = reference.draw(1)
    changed = {
        kind.name: varied for kind in contract.kinds if (varied := contract.varied(draw, kind)) is not None
    }
    assert kinds <= set(changed)
    for varied in changed.values():
        assert [t.dtype for t in varied.tensors] == [t.dtype for t in draw.tensors]
        assert all(torch.isfinite(t.float()).all() for t in varied.tensors)


def test_integers_of_8_bits_are_tried_at_their_ends_in_all_operands() -> None:
    draw = reference_of("a.int() @ b.int()", INT8).draw(1)
    ends = next(kind for kind in KINDS if kind.name == "integer_ends")
    varied = Contract(kinds=(ends,)).varied(draw, ends)
    assert varied is not None
    assert [sorted(t.unique().tolist()) for t in varied.tensors] == [[-128, 127], [-128, 127]]
    wider = reference_of("a.int() @ b.int()", INT8.replace("torch.int8", "torch.int16")).draw(1)
    assert Contract(kinds=(ends,)).varied(wider, ends) is None


def test_other_values_of_floats_of_8_bits_stay_within_their_range() -> None:
    draw = reference_of("a.float() @ b.float()", FLOAT8).draw(1)
    shifted = values.shifted(draw, random.Random(2), moves=True)
    for before, after in zip(draw.tensors, shifted.tensors, strict=True):
        assert after.dtype == before.dtype
        assert after.float().abs().max() <= before.float().abs().max()
        assert not torch.equal(after.float(), before.float())


def test_what_torch_cannot_compute_in_8_bits_is_said_with_a_remedy() -> None:
    with pytest.raises(TaskError, match=r"convert them in forward, as by \.float\(\)"):
        admit(reference_of("a * 2", FLOAT8))
