"""Kinds of values beside those that a task draws: what they keep, and which kernels they show."""

import pytest
import torch

from kbopt.core.outcomes import Measured, Rejected
from kbopt.core.protocol import EvalProtocol, Precision
from kbopt.evaluation.judge.errors import is_lost
from kbopt.evaluation.judge.kinds import KINDS, Contract, contract_of
from kbopt.evaluation.judge.reference import Draw, Reference
from kbopt.evaluation.judge.task_code import TaskError
from kbopt.evaluation.transport.layout import flatten
from tests.evaluation.conftest import Bench

BY_NAME = {kind.name: kind for kind in KINDS}
HEAD = """
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return {expression}


def get_inputs():
    return [{inputs}]


def get_init_inputs():
    return []
"""


def draw_of(*tensors: torch.Tensor) -> Draw:
    skeleton, flat = flatten(list(tensors))
    return Draw(skeleton=skeleton, tensors=tuple(flat))


def varied(name: str, *tensors: torch.Tensor, scale: float = 1.0) -> tuple[torch.Tensor, ...] | None:
    changed = Contract(kinds=KINDS, scale=scale).varied(draw_of(*tensors), BY_NAME[name])
    return None if changed is None else changed.tensors


def task(expression: str, inputs: str = "torch.randn(64, 300)", more: str = "") -> str:
    return HEAD.format(expression=expression, inputs=inputs) + more


def contract(source: str, *, counts_in_steps: bool = False, precision: Precision = "fp32") -> Contract:
    reference = Reference(source, EvalProtocol(precision=precision), torch.device("cpu"), 7)
    return contract_of(reference, reference.draw(1), counts_in_steps=counts_in_steps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.integers], ids=lambda kind: kind.name)
def test_signs_form_and_the_tensor_itself_are_kept(kind, dtype):
    torch.manual_seed(0)
    tensor = (torch.rand(40, 60) + 0.01).to(dtype).t()
    kept = tensor.clone()

    (changed,) = varied(kind.name, tensor, scale=64.0) or ()

    assert torch.equal(tensor, kept)
    assert (changed.dtype, changed.shape, changed.stride()) == (dtype, tensor.shape, tensor.stride())
    assert bool(torch.isfinite(changed).all())
    assert bool((changed < 0).any()) == (kind.name == "negative")
    assert not torch.equal(changed, tensor)


def test_an_outlier_is_one_element_that_decides_sums_and_for_half_precision_alone():
    tensor = torch.rand(32, 128) + 0.1

    (changed,) = varied("outlier", tensor) or ()

    factors = (changed / tensor)[changed != tensor]
    assert len(factors) == 1
    assert 63 < float(factors) < 4097
    names = {
        precision: {kind.name for kind in contract(task("x.mean(1)"), precision=precision).kinds}
        for precision in ("fp32", "fp16", "bf16")
    }
    assert names["bf16"] - names["fp32"] == names["fp16"] - names["fp32"] == {"outlier"}


def test_each_kind_is_what_its_name_says():
    torch.manual_seed(0)
    tensor = torch.randn(64, 500)

    found = {name: (varied(name, tensor, scale=2.0**30) or (tensor,))[0] for name in BY_NAME}

    assert torch.equal(found["small"] * 64, tensor)
    assert torch.equal(found["large"], tensor * 64)
    assert torch.equal(found["extremes"], tensor * 2.0**30)
    assert float(found["heavy_tailed"].abs().max()) > 20 * float(found["heavy_tailed"].abs().median())
    assert len(found["ties"].unique()) <= 9
    assert torch.equal(found["ties"].sign(), tensor.sign())
    assert torch.equal(found["sorted"], tensor.sort(-1).values)
    assert 0.005 < float((found["mostly_zero"] != 0).float().mean()) < 0.03
    assert torch.equal(found["constant_rows"], tensor[:, :1].expand(64, 500))


def test_what_has_a_meaning_is_left_alone():
    torch.manual_seed(0)
    square = torch.randn(40, 40)
    mask, labels, shares = torch.randint(0, 2, (99,)).float(), torch.arange(9).repeat(9), square.softmax(-1)

    sums = -torch.rand(30, 20).cumsum(0)
    for name in ("sorted", "constant_rows", "heavy_tailed", "mostly_zero"):
        assert varied(name, sums) is None
    assert varied("large", sums) is not None
    for kind in KINDS:
        assert varied(kind.name, mask, shares, torch.rand(3), scale=64.0) is None or kind.name == "extremes"
    for name in ("sorted", "constant_rows", "heavy_tailed"):
        assert varied(name, square + square.mT, square.triu()) is None
    assert varied("integer_ends", labels.sort().values) is None  # offsets grow
    assert varied("integer_ends", torch.randperm(50)) is None
    assert varied("integer_ends", torch.randint(0, 9, (50,)), torch.randint(0, 9, (50,))) is None


def test_integers_are_the_smallest_and_the_largest_of_those_drawn():
    torch.manual_seed(0)
    labels = torch.randint(3, 90, (200,))

    (changed,) = varied("integer_ends", labels) or ()

    assert set(changed.tolist()) == {int(labels.min()), int(labels.max())}
    assert changed.dtype == torch.int64


def test_extremes_leave_the_reference_finite_with_room_for_another_order():
    assert contract(task("x * 2")).scale == 2.0**34
    assert contract(task("(x * x).sum(-1)")).scale == 2.0**34
    assert contract(task("x.pow(4)")).scale == 2.0**14
    assert contract(task("torch.exp(x)")).scale == 1.0
    assert contract(task("x * 2", "torch.randint(0, 9, (99,)).float()")).scale == 1.0


def test_a_task_excludes_kinds_and_allows_others():
    usual = {kind.name for kind in contract(task("x * 2")).kinds}
    stated = contract(
        task("x * 2", more='\nEXCLUDED_VALUES = ["large", "mostly_zero"]\nALLOWED_VALUES = ["negative"]\n')
    )

    assert usual == set(BY_NAME) - {"negative", "outlier"}
    assert {kind.name for kind in stated.kinds} == usual - {"large", "mostly_zero"} | {"negative"}
    assert (contract(task("x * 2")).takes_zeros, stated.takes_zeros) == (True, False)


def test_a_name_that_is_no_kind_is_told():
    with pytest.raises(
        TaskError, match=r"unknown kind of values in the task's EXCLUDED_VALUES 'larg'\. Did you"
    ):
        contract(task("x * 2", more='\nEXCLUDED_VALUES = ["larg"]\n'))


def test_probabilities_keep_their_range_and_places_get_no_equals():
    losses = contract(task("torch.nn.functional.binary_cross_entropy(x, x)", "torch.rand(64, 300)"))
    places = contract(task("x.argmax(-1)"), counts_in_steps=True)
    looked_up = contract(task("x[(x * 0).long()[0]]"))

    for bounded in (losses, looked_up):
        assert not {"large", "heavy_tailed", "extremes"} & {kind.name for kind in bounded.kinds}
    assert not {"ties", "constant_rows", "mostly_zero"} & {kind.name for kind in places.kinds}


def kernel(expression: str) -> str:
    lines = ["import torch", "class ModelNew(torch.nn.Module):", "    def forward(self, x):"]
    return "\n".join([*lines, *(f"        {line}" for line in expression.split("; "))])


NORM = "torch.nn.functional.layer_norm(x, (300,))"
BY_MOMENTS = (
    "mean = x.mean(-1, keepdim=True); variance = (x * x).mean(-1, keepdim=True) - mean * mean; "
    "return (x - mean) * torch.rsqrt(variance.clamp(min=0) + 1e-5)"
)
UNSHIFTED = kernel("e = torch.exp(x); return e / e.sum(-1, keepdim=True)")


@pytest.mark.parametrize(
    ("expression", "source"),
    [
        (NORM, kernel(BY_MOMENTS)),
        (
            NORM,
            kernel(
                "x = x - x.flip(-1).mean(-1, keepdim=True); "
                "return x / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()"
            ),
        ),
        ("torch.logsumexp(x, -1)", kernel("m = x.amax(-1); return m + (x - m[:, None]).exp().sum(-1).log()")),
        ("(x.T @ x)", kernel("return (x.double().T @ x.double()).float()")),
        ("x.std(-1)", kernel("return (x - x.mean(-1, keepdim=True)).square().sum(-1).div(299).sqrt()")),
    ],
)
def test_another_order_of_the_same_work_is_right_on_every_kind(bench: Bench, expression: str, source: str):
    for _ in range(2):
        outcome = bench.judge(source, task(expression)).outcome

        assert isinstance(outcome, Measured), outcome


def test_a_kernel_for_drawn_values_alone_is_refused_with_the_kind(bench: Bench):
    outcome = bench.judge(UNSHIFTED, task("torch.softmax(x, -1)")).outcome
    excluded = bench.judge(
        UNSHIFTED,
        task("torch.softmax(x, -1)", more='\nEXCLUDED_VALUES = ["large", "heavy_tailed", "extremes"]\n'),
    ).outcome

    assert isinstance(outcome, Rejected)
    assert outcome.family == "value_specialisation"
    assert "right for what get_inputs() draws, and wrong on inputs" in outcome.reason
    assert isinstance(excluded, Measured)


def test_a_kernel_that_is_wrong_everywhere_is_no_specialist(bench: Bench):
    outcome = bench.judge(kernel("return torch.softmax(x, -1) * 1.001"), task("torch.softmax(x, -1)")).outcome

    assert not isinstance(outcome, Measured)
    assert not (isinstance(outcome, Rejected) and outcome.family == "value_specialisation")


def test_a_reference_that_has_rounding_alone_decides_nothing():
    """The gradient of a softmax over equal numbers is zero, and each order of sums leaves another rest."""
    right, zero, rest = torch.ones(4), torch.zeros(4), torch.full((4,), 1e-9)

    assert not is_lost([right + 1e-3], [right], 0.05)
    assert is_lost([right + 0.1], [right], 0.05)
    assert is_lost([right, rest], [right, zero], 0.05)
    assert not is_lost([right, zero], [right, zero], 0.05)
    assert not is_lost([torch.tensor([1])], [torch.tensor([0])], 0.05)
