"""Forward and backward as one call: what is asked for, what is compared, and what rounding may decide."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kbopt.core.errors import UserError
from kbopt.core.outcomes import Measured, WrongAnswer
from kbopt.core.protocol import EvalProtocol
from kbopt.evaluation.judge import rounding
from kbopt.evaluation.judge.admission import admit
from kbopt.evaluation.judge.reference import Draw, Output, Reference
from kbopt.evaluation.judge.task_code import TaskError
from kbopt.evaluation.passes import Gradients, call_of
from tests.evaluation.conftest import QUICK, Bench

BACKWARD = replace(QUICK, backward=True)
HEAD = "import torch\n\n"
TAIL = "\ndef get_init_inputs(): return []\n"
LAYER = """
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(64, 32))
        self.register_buffer("shift", torch.ones(32))
    def forward(self, x, mask, index):
        return torch.relu(x @ self.weight + self.shift) * (mask > 0), index + 1

def get_inputs(): return [torch.randn(48, 64), torch.randn(48, 32), torch.arange(4)]
"""
RELU = """
class Model(torch.nn.Module):
    def forward(self, x): return torch.relu(x) * 2 + x

def get_inputs(): return [torch.randn(64, 256)]
"""


def reference_of(model: str, **protocol: object) -> Reference:
    settings = EvalProtocol(backward=True, **protocol)  # type: ignore[arg-type]
    return Reference(f"{HEAD}{model}{TAIL}", settings, torch.device("cpu"), weight_seed=3)


def answers(reference: Reference, draw: Draw) -> tuple[Output, Output]:
    """In float64, and the reference's own."""
    return reference.run_exact(draw), reference.run(draw.arguments())


def test_gradients_are_asked_of_floats_that_the_outputs_depend_on() -> None:
    reference = reference_of(LAYER)
    draw = reference.draw(1)
    assert reference.gradients == Gradients(
        num_outputs=2, of_outputs=(0,), of_inputs=(0,), of_parameters=("weight",)
    )
    shapes = [tuple(tensor.shape) for tensor in reference.run(draw.arguments()).tensors]
    assert shapes == [(48, 32), (4,), (48, 64), (64, 32)]
    names = [reference.name_of(number) for number in range(4)]
    assert names == ["output 0", "output 1", "gradient of input 0", "gradient of parameter weight"]


def test_the_outputs_gradient_is_random_and_another_one_in_each_draw() -> None:
    reference = reference_of(LAYER)
    one, two = (reference.draw(seed).tensors[-1] for seed in (1, 2))
    assert one.shape == (48, 32)
    assert len(one.unique()) > 1000
    assert not torch.equal(one, two)
    assert torch.equal(one, reference.draw(1).tensors[-1])


def test_the_reference_gives_the_gradients_of_autograd() -> None:
    reference = reference_of(LAYER)
    draw = reference.draw(1)
    x, mask, index, grad = draw.tensors
    x = x.clone().requires_grad_()
    (reference.model(x, mask, index)[0] * grad).sum().backward()
    _, _, of_x, of_weight = reference.run(draw.arguments()).tensors
    torch.testing.assert_close(of_x, x.grad)
    torch.testing.assert_close(of_weight, reference.model.weight.grad)
    assert not draw.tensors[0].requires_grad


def test_a_call_leaves_no_gradient_behind() -> None:
    reference = reference_of(LAYER)
    draw = reference.draw(1)
    first, second = (reference.run(draw.arguments()).tensors for _ in range(2))
    assert all(map(torch.equal, first, second))
    assert reference.model.weight.grad is None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "class Model(torch.nn.Module):\n    def forward(self, x): return (x > 0).float()\n"
            "def get_inputs(): return [torch.randn(8, 8)]\n",
            r"output 0 \(float32\) depends by no differentiable operation",
        ),
        (
            "class Model(torch.nn.Module):\n    def forward(self, x): return x * 2\n"
            "def get_inputs(): return [torch.arange(64)]\n",
            "get_inputs\\(\\) returns no floating-point tensor of 16 bits or more",
        ),
        (
            "class Model(torch.nn.Module):\n    def forward(self, x): return x.mul_(2)\n"
            "def get_inputs(): return [torch.randn(8, 8)]\n",
            "the reference's forward and backward raised RuntimeError: a leaf Variable",
        ),
    ],
)
def test_a_reference_without_gradients_is_refused_with_the_reason(model: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        reference_of(model).draw(1)


def test_a_model_without_the_parameter_has_no_gradient_of_it() -> None:
    asked = Gradients(num_outputs=1, of_outputs=(0,), of_inputs=(0,), of_parameters=("weight",))
    x, grad = torch.randn(2, 8, 8)
    _, gradients = call_of(torch.nn.ReLU(), asked, [[x], [grad]])()
    assert gradients[1] is None
    assert torch.equal(gradients[0], grad * (x > 0))
    _, gradients = call_of(lambda x: x.detach(), asked, [[x], [grad]])()
    assert gradients == [None, None]
    _, gradients = call_of(lambda x: x.sum(), asked, [[x], [grad]])()  # its gradient has another shape
    assert gradients == [None, None]


def is_excused(reference: Reference, draw: Draw, got: list[torch.Tensor]) -> bool:
    exact, own = answers(reference, draw)
    return rounding.decides(reference, draw, got, exact, own, 1e-4, False)


def test_the_gradient_of_a_relu_at_zero_may_be_that_of_either_side() -> None:
    reference = reference_of(RELU)
    draw = reference.draw(1)
    x, grad = draw.tensors
    x[:, ::2] = 0.0
    forward = torch.relu(x) * 2 + x
    assert is_excused(reference, draw, [forward, torch.where(x >= 0, 3 * grad, grad)])
    assert not is_excused(reference, draw, [forward, torch.where(x >= 0, 3 * grad, 0 * grad)])
    assert not is_excused(reference, draw, [forward, torch.where(x >= -0.5, 3 * grad, grad)])
    assert not is_excused(reference, draw, [forward, torch.zeros_like(grad)])
    assert not is_excused(reference, draw, [forward + 1, torch.where(x >= 0, 3 * grad, grad)])


def test_one_argument_of_a_relu_near_zero_may_change_a_row_of_a_gradient() -> None:
    reference = reference_of(LAYER)
    draw = reference.draw(1)
    x, mask, index, grad = draw.tensors
    weight, mask[:] = reference.model.weight.detach(), 1.0
    with torch.no_grad():  # The argument at [0, 0] is zero up to rounding.
        weight[:, 0] -= x[0] * ((x[0] @ weight[:, 0] + 1) / (x[0] @ x[0]))
        reference.exact.weight.copy_(weight)
    inner = x @ weight + 1
    passes = inner > 0
    passes[0, 0] = ~(reference.run_exact(draw).tensors[0][0, 0] > 0)
    of_inner = grad * passes
    got = [torch.relu(inner), index + 1, of_inner @ weight.T, x.T @ of_inner]
    assert is_excused(reference, draw, got)
    half = of_inner.bfloat16()
    got = [*got[:2], (half @ weight.T.bfloat16()).float(), (x.T.bfloat16() @ half).float()]
    assert not is_excused(reference, draw, got)


def test_a_task_with_gradients_is_admitted_and_forward_alone_is_as_it_was() -> None:
    assert admit(reference_of(LAYER)).tolerance == 1e-4
    forward = Reference(f"{HEAD}{LAYER}{TAIL}", EvalProtocol(), torch.device("cpu"), weight_seed=3)
    assert len(forward.draw(1).tensors) == 3
    assert forward.gradients is None


BY_HAND = """
import torch

class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.relu(x) * 2 + x
    @staticmethod
    def backward(ctx, grad):
        x, = ctx.saved_tensors
        return torch.where(x > 0, 3 * grad, grad)

class ModelNew(torch.nn.Module):
    def forward(self, x):
        return Step.apply(x)
"""


@pytest.mark.slow
def test_a_kernel_is_judged_by_both_of_its_passes(bench: Bench) -> None:
    task = f"{HEAD}{RELU}{TAIL}"
    wrong = BY_HAND.replace("3 * grad", "2 * grad")
    missing = BY_HAND.replace("Step.apply(x)", "Step.apply(x.detach())")
    right, bad, none = bench.judge_all([BY_HAND, wrong, missing], task, BACKWARD)
    assert isinstance(right.outcome, Measured)
    assert "/backward/" in right.protocol
    assert isinstance(bad.outcome, WrongAnswer)
    assert "gradient of input 0 at index [" in bad.outcome.reason
    assert isinstance(none.outcome, WrongAnswer)
    assert none.outcome.reason.startswith("gradient of input 0 is missing: autograd finds no way to it")
    with pytest.raises(UserError, match="admission test 'differentiable' failed"):
        bench.judge(BY_HAND, task.replace("torch.relu(x) * 2 + x", "torch.sign(x.detach())"), BACKWARD)
