"""Inputs that look like a task's own: what they keep, and what they change."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kbopt.evaluation.judge import values
from kbopt.evaluation.judge.reference import Draw
from kbopt.evaluation.transport.layout import flatten

SEEDS = st.integers(0, 2**31)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64])
SHAPES = st.sampled_from([(300,), (7, 41), (64, 64), (3, 5, 20), (2, 3, 8, 8)])


def draw_of(*tensors: torch.Tensor) -> Draw:
    skeleton, flat = flatten(list(tensors))
    return Draw(skeleton=skeleton, tensors=tuple(flat))


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, dtype=DTYPES, shape=SHAPES, moves=st.booleans(), positive=st.booleans())
def test_other_values_lie_within_the_range_and_keep_form_and_sign(seed, dtype, shape, moves, positive):
    torch.manual_seed(seed)
    tensor = (torch.rand(shape) if positive else torch.randn(shape)).to(dtype)
    draw = draw_of(tensor)
    kept = tensor.clone()

    (changed,) = values.shifted(draw, random.Random(seed), moves=moves).tensors

    assert torch.equal(tensor, kept)
    assert (changed.dtype, changed.shape, changed.stride()) == (dtype, shape, tensor.stride())
    assert not torch.equal(changed, tensor)
    assert min(0.0, float(tensor.min())) <= float(changed.min())
    assert float(changed.max()) <= max(0.0, float(tensor.max()))
    if not moves:
        assert torch.equal(changed.sign(), tensor.sign())
        normal = tensor.abs() >= 4 * torch.finfo(dtype).tiny  # Smaller ones are rounded when they are scaled.
        assert set((changed[normal] / tensor[normal]).unique().tolist()) <= {1.0, 0.5, 0.25}


def structured() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "integers": torch.randint(0, 9, (40, 40)),
        "labels as floats": torch.randint(0, 2, (400,)).float() * 2 - 1,
        "shares": torch.rand(40, 50).softmax(-1),
        "shares of columns": torch.rand(40, 50).softmax(0),
        "few elements": torch.rand(4),
        "not finite": torch.full((100,), float("inf")),
    }


@pytest.mark.parametrize("kind", structured())
def test_what_has_a_meaning_is_left_alone(kind: str):
    tensor = structured()[kind]
    draw = draw_of(tensor)

    for seed in range(8):
        assert values.shifted(draw, random.Random(seed), moves=True).tensors[0] is tensor
    assert list(values.with_other_slices(draw, 0.1, 1.0, random.Random(0))) == []


@pytest.mark.parametrize("moves", [True, False])
def test_structure_is_kept(moves: bool):
    square = torch.randn(40, 40)
    symmetric, triangular = square + square.mT, torch.tril(square)

    for seed in range(8):
        one, other = values.shifted(draw_of(symmetric, triangular), random.Random(seed), moves=moves).tensors
        assert torch.equal(one, one.mT)
        assert torch.equal(other == 0, triangular == 0)


def with_zeros(shape: tuple[int, ...], number: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Random numbers, of which `number` are zero in random places."""
    torch.manual_seed(1)
    tensor = torch.rand(shape).clamp_(min=0.01)
    tensor.view(-1)[torch.randperm(tensor.numel())[:number]] = 0
    return tensor.to(dtype)


def patterns() -> dict[str, torch.Tensor]:
    return {
        "triangular": torch.tril(with_zeros((200, 200), 0)),
        "empty diagonal": with_zeros((1024, 1024), 0).fill_diagonal_(0),
        "empty diagonal in bf16": with_zeros((1024, 1024), 0).fill_diagonal_(0).bfloat16(),
        "empty column in bf16": with_zeros((1024, 1024), 0, torch.bfloat16).index_fill_(
            1, torch.tensor(3), 0
        ),
        "one in a hundred": with_zeros((400, 400), 1600),
        "one in a hundred in bf16": with_zeros((400, 400), 1600, torch.bfloat16),
        "one of few": with_zeros((10, 10), 1),
        "a stack of empty diagonals": with_zeros((4, 1024, 1024), 0) * (1 - torch.eye(1024)),
    }


@pytest.mark.parametrize("name", patterns())
def test_zeros_on_purpose_are_told(name: str):
    assert values.has_pattern_of_zeros(patterns()[name])


@pytest.mark.parametrize(
    "tensor",
    [
        with_zeros((100, 100), 0),
        with_zeros((100, 100), 3),
        with_zeros((4096, 2048), 8),
        with_zeros((512, 512), 1024, torch.bfloat16),
        with_zeros((1024, 1024), 400, torch.float16),
        torch.rand(2**20, dtype=torch.bfloat16),
        torch.rand(2**20, dtype=torch.float16),
        torch.randn(2**20).to(torch.float8_e4m3fn),
    ],
    ids=lambda tensor: f"{tensor.dtype} {list(tensor.shape)}",
)
def test_zeros_that_chance_draws_are_no_pattern(tensor: torch.Tensor):
    assert not values.has_pattern_of_zeros(tensor)


def test_a_large_tensor_is_moved_although_chance_drew_zeros():
    """torch.rand draws one zero in 2^24 numbers, so that most of KernelBench's inputs hold some."""
    tensor = with_zeros((1024, 4096), 4)

    seeds = map(random.Random, range(8))
    moved = [values.shifted(draw_of(tensor), seed, moves=True).tensors[0] for seed in seeds]

    assert any(not torch.equal(one == 0, tensor == 0) for one in moved)


def test_few_slices_of_one_tensor_get_short_sums_and_no_zeros():
    left, right = torch.rand(128, 512), torch.rand(512, 256)

    changed = list(values.with_other_slices(draw_of(left, right), 0.01, 1.0, random.Random(0)))

    assert len(changed) == 4
    for draw in changed:
        differing = [a != b for a, b in zip(draw.tensors, (left, right), strict=True)]
        (mask,) = (mask for mask in differing if bool(mask.any()))
        slices = min(int(mask.any(dim).sum()) for dim in (0, 1))
        assert 1 <= slices <= 8
        assert all(bool((tensor != 0).all()) for tensor in draw.tensors)
        assert 0.9 < float(mask.sum()) / (slices * max(mask.any(0).sum(), mask.any(1).sum())) < 1


def test_a_symmetric_matrix_gets_no_short_sums():
    square = torch.randn(40, 40)

    assert list(values.with_other_slices(draw_of(square + square.mT), 0.1, 1.0, random.Random(0))) == []
