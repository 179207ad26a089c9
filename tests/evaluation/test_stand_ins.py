"""Answers for which sums or a part of the terms stand in, and honest ones that are less precise."""

from collections.abc import Callable

import pytest
import torch

from kbopt.core.protocol import Precision
from kbopt.evaluation.judge.stand_ins import describe_stand_in
from kbopt.evaluation.passes import output_name

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def found(
    product: Product,
    *,
    precision: Precision = "bf16",
    draw: Callable[..., torch.Tensor] = torch.rand,
    shape: tuple[int, int, int] = (160, 4096, 130),
) -> str:
    torch.manual_seed(3)
    rows, terms, columns = shape
    dtype = DTYPES.get(precision, torch.bfloat16)
    a, b = draw(rows, terms).to(dtype), draw(terms, columns).to(dtype)
    exact = a.double() @ b.double()
    own = exact.float().to(dtype)
    got = product(a, b).to(dtype)
    return describe_stand_in(precision, [got], [exact], [own], output_name)


def of_sums(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.double().sum(1)[:, None] * b.double().sum(0) / a.shape[1]


def of_half(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    half = a.shape[1] // 2
    some, others = a[:, :half].double(), b[:half].double()
    rows = a.double().sum(1) - 2 * some.sum(1)
    columns = b.double().sum(0) - 2 * others.sum(0)
    return 2 * some @ others + 0.5 * (rows[:, None] + columns)


def in_parts(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    parts = [
        (some.double() @ others.double()).to(a.dtype)
        for some, others in zip(a.chunk(4, 1), b.chunk(4, 0), strict=True)
    ]
    return parts[0] + parts[1] + parts[2] + parts[3]


def truncated(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The last bit of each operand is cut off."""
    few = [(t.view(torch.int16) & ~1).view(t.dtype).double() for t in (a, b)]
    return few[0] @ few[1]


def of_eight_bits(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    scales = [a.abs().amax(1, keepdim=True).double() / 127, b.abs().amax(0, keepdim=True).double() / 127]
    return ((a / scales[0]).round() * scales[0]) @ ((b / scales[1]).round() * scales[1])


def scaled(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The same, one percent too large."""
    return 1.01 * (a.double() @ b.double())


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize(
    ("product", "reason"),
    [
        (of_sums, "output 0 keeps 0 % of what is not common"),
        (lambda a, b: torch.full((a.shape[0], b.shape[1]), 1024.0), "output 0 keeps 0 % of what"),
        (of_half, "a part of the terms stands in for all"),
    ],
)
def test_what_stands_in_is_found(product: Product, reason: str, precision: Precision):
    assert reason in found(product, precision=precision)


@pytest.mark.parametrize("draw", [torch.rand, torch.randn])
@pytest.mark.parametrize("product", [torch.matmul, in_parts, truncated, of_eight_bits])
def test_rounding_is_no_stand_in(product: Product, draw: Callable[..., torch.Tensor]):
    assert found(product, draw=draw) == ""


def test_a_common_factor_of_zero_mean_products_is_no_stand_in():
    assert found(scaled, draw=torch.randn) == ""


def test_in_fp32_nothing_is_looked_for():
    assert found(of_sums, precision="fp32") == ""


def test_few_elements_say_nothing():
    assert found(of_sums, shape=(63, 64, 64)) == ""


def test_what_the_reference_rounds_away_is_not_asked_of_others():
    """Two neighbours among bf16's numbers around 1024 are 8 apart, and the elements differ by less."""
    assert found(of_sums, shape=(160, 1024, 130), draw=lambda *shape: 1 + 0.01 * torch.rand(shape)) == ""


@pytest.mark.parametrize("shape", [(8192,), (8192, 1), (1, 8192), (2, 4096), (4, 64, 32)])
def test_outputs_of_any_shape_are_looked_at(shape: tuple[int, ...]):
    exact = torch.randn(shape, dtype=torch.float64)
    own = exact.bfloat16()

    assert describe_stand_in("bf16", [own], [exact], [own], output_name) == ""
    assert "keeps 0 %" in describe_stand_in("bf16", [torch.zeros_like(own)], [exact], [own], output_name)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_answers_that_are_not_finite_are_left_to_other_rules(value: float):
    exact = torch.randn(64, 128, dtype=torch.float64)
    exact[3, 4] = value
    own = exact.bfloat16()

    assert describe_stand_in("bf16", [own], [exact], [own], output_name) == ""
