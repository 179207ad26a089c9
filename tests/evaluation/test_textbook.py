"""The reference by textbook formulas, and which errors they explain."""

import numpy as np
import pytest
import torch

from kbopt.core.protocol import EvalProtocol
from kbopt.evaluation.judge import textbook
from kbopt.evaluation.judge.errors import Error, measure_error
from kbopt.evaluation.judge.reference import Draw, Reference

SOURCE = """
import torch
import torch.nn as nn
import torch.nn.functional as F

class Model(nn.Module):
    def forward(self, x):
        return {body}

def get_inputs():
    return [{inputs}]

def get_init_inputs():
    return []
"""
NEAR_ZERO = "1e-4 * torch.randn(64, 64)"


def task(body: str, inputs: str = "torch.randn(2, 4, 32, 32)", **protocol: object) -> tuple[Reference, Draw]:
    source = SOURCE.format(body=body, inputs=inputs)
    reference = Reference(source, EvalProtocol(**protocol), torch.device("cpu"), 7)
    return reference, reference.draw(3)


def relative_errors(reference: Reference, draw: Draw) -> tuple[float, float]:
    """Those of the textbook answer and of the reference's own."""
    exact, own = reference.run_exact(draw), reference.run(draw.arguments())
    answers = textbook.answers(reference, draw)
    for answer in answers:
        assert [t.shape for t in answer.tensors] == [t.shape for t in own.tensors]
    formulas = max(measure_error(answer.tensors, exact.tensors).rms for answer in answers)
    return formulas, measure_error(own.tensors, exact.tensors).rms


@pytest.mark.parametrize(
    "body",
    [
        "F.elu(x, 0.7)",
        "F.elu(x.clone(), 0.7, inplace=True)",
        "F.selu(x)",
        "F.celu(x, 2.0)",
        "torch.tanh(x)",
        "F.softplus(x, 2.0, 1.5)",
        "F.mish(x)",
        "F.logsigmoid(x)",
        "torch.expm1(x)",
        "torch.log1p(x.abs())",
        "x.var(1)",
        "x.var((1, 3), correction=0, keepdim=True)",
        "x.std()",
        "torch.var_mean(x, (0, 2))",
        "F.layer_norm(x, (32, 32), torch.full((32, 32), 2.0), torch.ones(32, 32))",
        "F.group_norm(x, 2, torch.arange(4.0), torch.ones(4))",
        "F.instance_norm(x)",
        "F.batch_norm(x, None, None, torch.arange(4.0), torch.ones(4), training=True)",
        "torch.norm(x, dim=1)",
        "torch.norm(x, p=1, dim=(2, 3), keepdim=True)",
        "x.sum()",
        "x.sum((0, 2), keepdim=True)",
        "x.mean((2, 3))",
        "x.softmax(1)",
        "F.log_softmax(x, -1)",
        "torch.logsumexp(x, (1, 2))",
        "torch.logsumexp(x, 1, keepdim=True)",
        "F.mse_loss(x, 2.0 * x + 1.0)",
        "F.smooth_l1_loss(x, 2.0 * x + 1.0, reduction='sum')",
        "F.huber_loss(x, 2.0 * x + 1.0, delta=0.5)",
        "x.cumsum(2)",
        "x @ x",
        "F.linear(x.flatten(1), torch.ones(3, 4096), torch.ones(3))",
        "torch.baddbmm(x[0], x[0], x[1], beta=2.0, alpha=0.5)",
    ],
)
def test_formulas_give_the_reference_s_answer_in_fp32(body: str) -> None:
    formulas, _ = relative_errors(*task(body))

    assert formulas < 2e-5


@pytest.mark.parametrize("body", ["F.elu(x)", "F.celu(x)", "torch.tanh(x)", "torch.expm1(x)", "F.mish(x)"])
def test_formulas_cancel_near_zero_where_pytorch_does_not(body: str) -> None:
    formulas, own = relative_errors(*task(body, NEAR_ZERO))

    if body == "F.mish(x)":  # Its tangent is that of log(2).
        assert formulas < 4 * own
    else:
        assert formulas > 100 * own


@pytest.mark.parametrize("body", ["x.sum()", "x.cumsum(0)[-1]", "x[None] @ x[:, None]"])
def test_the_error_of_a_serial_sum_grows_with_the_root_of_its_terms(body: str) -> None:
    """Partial sums are 1, 2, 3, ..., each rounded by up to 2^-24 of itself."""
    for terms in (2**12, 2**18):
        formulas, _ = relative_errors(*task(body, f"torch.rand({terms})"))
        usual = 2.0**-24 * terms**0.5 / 3
        assert usual < formulas < 8 * usual


def test_a_serial_sum_of_equal_numbers_drifts() -> None:
    """numpy adds one after the other in fp32 and shows by how much."""
    for number in (1.1, 0.7, 3.3):
        numbers = np.full(65536, number, np.float32)
        drift = abs(float(np.add.accumulate(numbers)[-1]) / (65536 * float(np.float32(number))) - 1)
        formulas, _ = relative_errors(*task("x.sum(1)", f"torch.full((4, 65536), {number})"))
        assert drift < 4 * formulas


def test_terms_below_the_roundoff_of_a_sum_are_lost() -> None:
    numbers = np.concatenate([[np.float32(8.0)], np.full(65535, 3e-7, np.float32)])
    lost = abs(float(np.add.accumulate(numbers)[-1]) / float(numbers.sum(dtype=np.float64)) - 1)

    formulas, _ = relative_errors(*task("x.sum()", "F.pad(torch.full((65535,), 3e-7), (1, 0), value=8.0)"))

    assert lost > 1e-3
    assert lost < 4 * formulas


def test_adding_zeros_rounds_nothing() -> None:
    """Else no input shows half precision in a long sum of which most terms are zero."""
    formulas, _ = relative_errors(*task("x.sum()", "F.pad(torch.rand(16), (0, 65520))"))

    assert formulas < 5e-7


def test_equal_numbers_behind_a_mean_drift_in_the_second_formula_alone() -> None:
    """Of zeros the squares add up exactly, and the squares of zeros less the mean do not."""
    reference, draw = task("x.var(1)", "F.pad(torch.rand(4, 64), (0, 65472))")
    exact = reference.run_exact(draw).tensors

    one_pass, two_passes = (
        measure_error(one.tensors, exact).rms for one in textbook.answers(reference, draw)
    )

    assert one_pass < 1e-6
    assert two_passes > 10 * one_pass


def test_sums_may_be_left_as_they_are() -> None:
    reference, draw = task("x.sum(0)", "torch.rand(65536, 4)")

    (at_once,) = textbook.answers(reference, draw, serial=False)

    assert torch.equal(at_once.tensors[0], reference.run(draw.arguments()).tensors[0])


@pytest.mark.parametrize(
    ("body", "inputs", "protocol"),
    [
        ("torch.relu(x)", "torch.randn(64)", {}),
        ("torch.tanh(x)", "torch.randn(64)", {"precision": "bf16"}),
        ("torch.tanh(x.double())", "torch.randn(64)", {}),
        ("F.logsigmoid(x)", "torch.full((64,), -200.0)", {}),
        ("F.batch_norm(x, torch.zeros(4), torch.ones(4))", "torch.randn(2, 4)", {}),
    ],
    ids=["no formula", "in bf16", "in float64", "overflow", "no statistics"],
)
def test_there_may_be_no_textbook_answer(body: str, inputs: str, protocol: dict[str, str]) -> None:
    reference, draw = task(body, inputs, **protocol)

    assert textbook.answers(reference, draw) == []


def test_an_error_of_the_same_size_is_explained_and_a_larger_one_is_not() -> None:
    reference, draw = task("torch.tanh(x)", NEAR_ZERO)
    exact = reference.run_exact(draw).tensors
    formulas, _ = relative_errors(reference, draw)

    def left(rms: float, median: float) -> Error:
        return textbook.unexplained(Error(rms=rms, median=median), reference, draw, exact)

    assert left(2 * formulas, 0.0) == Error(rms=0.0, median=0.0)
    assert left(5 * formulas, 1.0) == Error(rms=5 * formulas, median=1.0)


def test_elements_may_be_off_by_as_much_too() -> None:
    reference, draw = task("torch.tanh(x)", NEAR_ZERO)
    exact = reference.run_exact(draw)

    (moved,) = textbook.moved_errors(reference, draw, exact.tensors)

    (formulas,) = textbook.answers(reference, draw)
    most = float((formulas.tensors[0] - exact.tensors[0]).abs().max())
    assert 16 * moved == pytest.approx(4 * most)
    assert textbook.moved_errors(*task("torch.relu(x)"), exact.tensors) == (0.0,)
