"""Comparisons and inputs of every type on a CPU and on a GPU, whose kernels lack other types and orders.

As a script it runs on a GPU without pytest.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kbopt.evaluation.judge import admission, kinds, tolerance, values
from kbopt.evaluation.judge.admission import same_bits
from kbopt.evaluation.judge.errors import describe_bias, measure_error
from kbopt.evaluation.judge.precision import Parts
from kbopt.evaluation.judge.products import round_mantissa
from kbopt.evaluation.judge.reference import Draw, Output
from kbopt.evaluation.judge.slack import Slack
from kbopt.evaluation.judge.steps import differs
from kbopt.evaluation.judge.tolerance import accepts, extents, find_mismatch, is_finite, largest_errors, wide

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COMPLEX = (torch.complex64, torch.complex128)
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)
UNSIGNED = (torch.uint8, torch.uint16, torch.uint32, torch.uint64)
DTYPES = (*FLOATS, *COMPLEX, *FLOAT8, *INTEGERS, *UNSIGNED)
SHAPES = ((), (1,), (3077,), (7, 439), (2, 3, 4, 5))
PIECE = 2**10
MOST_COPIES = 8
"""Copies of a piece in float64 that a comparison takes at most, as `tolerance._PIECE_ELEMENTS` says."""


@contextmanager
def small_pieces() -> Iterator[None]:
    """Have tensors of a few thousand elements compared in several pieces."""
    kept = dict(tolerance._PIECE_ELEMENTS)
    tolerance._PIECE_ELEMENTS.update(dict.fromkeys(kept, PIECE))
    try:
        yield
    finally:
        tolerance._PIECE_ELEMENTS.update(kept)


def numbered(shape: tuple[int, ...], dtype: torch.dtype, device: str, *, last: int = 0) -> torch.Tensor:
    """1, 2, 3, 1, ... in order of indices, `last` more in the last element; of bool, whether that is odd."""
    flat = torch.arange(math.prod(shape)) % 3 + 1
    if last:
        flat[-1] += last
    whole = flat.reshape(shape)
    return (whole % 2 == 1 if dtype == torch.bool else whole.to(dtype)).to(device)


def layouts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensor, and with its dimensions in memory in the opposite order if it has two."""
    yield tensor
    if tensor.dim() > 1:
        order = tuple(reversed(range(tensor.dim())))
        yield tensor.permute(order).contiguous().permute(order)


def compare_every_type(dtype: torch.dtype, device: str) -> None:
    for shape in SHAPES:
        for own, other in zip(
            layouts(numbered(shape, dtype, device)),
            layouts(numbered(shape, dtype, device, last=1)),
            strict=True,
        ):
            compare(own, other)
    empty = numbered((0,), dtype, device)
    assert find_mismatch([empty], [empty], [empty], 1e-4) is None
    assert is_finite(empty)
    assert same_bits(empty, empty.clone())
    assert extents([empty], [empty]) == [(0.0, Slack(most=0.0))]


def compare(own: torch.Tensor, other: torch.Tensor) -> None:
    """`other` differs from `own` in the last element alone."""
    exact = own if tolerance.counts_in_steps(own) else wide(own)
    known = extents([own], [exact])
    assert find_mismatch([own.clone()], [exact], [own], 1e-4) is None
    assert accepts([own.clone()], [exact], [own], 1e-4, known)
    found = find_mismatch([other], [exact], [own], 1e-4)
    assert found is not None
    assert found.index == tuple(size - 1 for size in own.shape)
    assert (found.num_wrong, found.num_elements) == (1, own.numel())
    assert str(found).startswith("output 0 at index")
    assert not accepts([other], [exact], [own], 1e-4, known)
    assert largest_errors([own], [exact]) == (0.0,)
    assert same_bits(own, own.clone())
    assert not same_bits(own, other)
    assert is_finite(own)
    assert measure_error([own], [exact]).rms == 0.0
    if not tolerance.counts_in_steps(own):
        squares = [(index % 3 + 1) ** 2 for index in range(own.numel())]
        assert math.isclose(known[0][0] ** 2, sum(squares) / len(squares), rel_tol=1e-9)
        last = own.flatten()[-1].item()
        assert math.isclose(measure_error([other], [exact]).rms ** 2, 1 / sum(squares), rel_tol=1e-9), last
        assert describe_bias([own], [exact]) == ""
    mask = differs(own, other) if tolerance.counts_in_steps(own) else own != other
    (part,) = Parts(masks=(mask,)).of([own])
    assert (part.dtype, part.tolist()) == (own.dtype, [own.flatten()[-1].item()])
    garbage = admission._garbage(own)
    assert garbage.dtype == own.dtype
    form = admission._form_of(Output(skeleton={}, tensors=(own,))).tensors[0]
    assert (form.shape, form.stride(), form.dtype) == (own.shape, own.stride(), own.dtype)
    assert tolerance.counts_in_steps(form) is tolerance.counts_in_steps(own)
    mean = admission._constant(own)
    assert (mean.shape, mean.dtype) == (own.shape, own.dtype)
    if own.dtype in FLOATS and own.numel() == 3077:
        assert math.isclose(mean[0].item(), 6153 / 3077, rel_tol=0.01)


def find_what_is_not_finite(dtype: torch.dtype, device: str) -> None:
    for shape in ((), (3077,), (7, 439)):
        for tensor in layouts(numbered(shape, dtype, device)):
            for value in (math.nan, math.inf, -math.inf):
                broken = tensor.clone()
                broken[tuple(size - 1 for size in shape)] = value
                exact = wide(broken)
                assert not is_finite(broken)
                assert find_mismatch([broken.clone()], [exact], [broken], 1e-4) is None
                found = find_mismatch([tensor], [exact], [broken], 1e-4)
                assert found is not None
                assert found.num_wrong == 1
                assert accepts([tensor], [exact], [broken], 1e-4, extents([broken], [exact])) is False


def change_inputs(dtype: torch.dtype, device: str) -> None:
    torch.manual_seed(0)
    tensor = (torch.rand(64, 96) + 0.5).to(device).to(dtype)
    for like in layouts(tensor):
        for kind in kinds.KINDS:
            if kind.integers or kind.name == "extremes":
                continue
            changed = kinds._changed(like, kind)
            assert (changed.dtype, changed.shape, changed.device) == (like.dtype, like.shape, like.device)
            assert changed.stride() == like.stride()
            assert bool(torch.isfinite(changed.float()).all()), kind.name
        smaller = kinds._changed(like, next(kind for kind in kinds.KINDS if kind.name == "small"))
        if dtype in FLOATS:
            assert torch.equal(smaller * 64, like)
    if dtype in FLOATS:
        draw = Draw(skeleton={}, tensors=(tensor,))
        (moved,) = values.shifted(draw, random.Random(0), moves=True).tensors
        assert moved.dtype == dtype
        assert bool((moved >= tensor.min()).all() and (moved <= tensor.max()).all())
        assert not torch.equal(moved, tensor)


def round_operands(device: str) -> None:
    given = torch.tensor([[1 + 2.0**-10, 1 + 2.0**-11, 1 + 3 * 2.0**-11], [-1.0, 0.0, 2.0**-130]])
    wanted = torch.tensor([[1 + 2.0**-10, 1.0, 1 + 2.0**-9], [-1.0, 0.0, 2.0**-130]])
    assert torch.equal(round_mantissa(given.to(device), 10).cpu(), wanted)
    assert torch.equal(round_mantissa(given.to(device).t(), 10).cpu(), wanted.t())


def stay_within_the_pieces() -> None:
    """A comparison takes as many copies of a piece as its limit says, however large the answer is."""
    own = torch.rand(5, 2**26, device="cuda")
    exact, got = own.double(), own * 1.001
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    for compares in (
        lambda: extents([own], [exact]),
        lambda: accepts([got], [exact], [own], 1e-4, [(1.0, Slack(most=0.0))]),
        lambda: find_mismatch([got], [exact], [own], 1e-4),
        lambda: measure_error([got], [exact]),
        lambda: is_finite(own),
    ):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        compares()
        most = MOST_COPIES * 8 * tolerance._PIECE_ELEMENTS["cuda"]
        assert torch.cuda.max_memory_allocated() - before <= most


if __name__ == "__main__":
    with small_pieces():
        for every in DTYPES:
            compare_every_type(every, "cuda")
        for every in FLOATS:
            find_what_is_not_finite(every, "cuda")
        for every in (*FLOATS, *FLOAT8):
            change_inputs(every, "cuda")
        round_operands("cuda")
    stay_within_the_pieces()
    print("comparisons of every type are right on", torch.cuda.get_device_name())
else:
    import pytest

    on_each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])

    @on_each_device
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_answers_of_every_type_are_compared(dtype: torch.dtype, device: str) -> None:
        with small_pieces():
            compare_every_type(dtype, device)

    @on_each_device
    @pytest.mark.parametrize("dtype", FLOATS)
    def test_what_is_not_finite_is_found_in_every_piece(dtype: torch.dtype, device: str) -> None:
        with small_pieces():
            find_what_is_not_finite(dtype, device)

    @on_each_device
    @pytest.mark.parametrize("dtype", [*FLOATS, *FLOAT8])
    def test_inputs_of_other_values_keep_type_and_strides(dtype: torch.dtype, device: str) -> None:
        change_inputs(dtype, device)

    @on_each_device
    def test_operands_are_rounded_to_even(device: str) -> None:
        round_operands(device)

    @pytest.mark.gpu
    def test_a_comparison_takes_a_few_copies_of_a_piece() -> None:
        stay_within_the_pieces()
