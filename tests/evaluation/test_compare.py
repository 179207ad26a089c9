"""Right answers, wrong answers and lower precisions, told apart on tensors."""

import pytest
import torch

from kbopt.evaluation import compare
from kbopt.evaluation.compare import (
    find_mismatch,
    is_downgrade,
    largest_errors,
    measure_error,
    sparse_probe,
)


def product(k: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(32, k, generator=generator), torch.rand(k, 32, generator=generator)


def serial_sum(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Adds one term after the other in fp32, as a hand-written tile does: the worst honest order."""
    total = torch.zeros(a.shape[0], b.shape[1])
    for k in range(a.shape[1]):
        total = total + a[:, k : k + 1] * b[k : k + 1]
    return total


def verdicts(answer, k: int = 4096) -> list[bool]:
    """Whether the answer counts as a downgrade on inputs as drawn, and on sparse ones."""
    found = []
    a, b = product(k)
    torch.manual_seed(0)
    for share in (1.0, 0.25, 0.004):
        left, right = (sparse_probe(a, share), sparse_probe(b, share)) if share < 1 else (a, b)
        exact = left.double() @ right.double()
        reference = measure_error([left @ right], [exact])
        found.append(is_downgrade(measure_error([answer(left, right)], [exact]), reference, "fp32"))
    return found


@pytest.mark.parametrize("k", [64, 4096])
def test_another_order_of_summation_is_no_downgrade(k: int):
    assert verdicts(serial_sum, k) == [False, False, False]


def test_half_precision_inputs_are_a_downgrade_though_within_the_tolerance():
    def half(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a.half().float() @ b.half().float()

    a, b = product(4096)
    assert find_mismatch([half(a, b)], [a.double() @ b.double()], [a @ b], 1e-4) is None
    assert any(verdicts(half))


def test_a_long_sum_hides_the_rounding_of_its_terms_and_a_sparse_one_does_not():
    a, b = product(65536)
    exact = a.double() @ b.double()
    serial = measure_error([serial_sum(a, b)], [exact]).rms
    rounded = measure_error([(a.half().double() @ b.half().double()).float()], [exact]).rms
    assert serial > rounded / 8

    torch.manual_seed(0)
    a, b = sparse_probe(a, 0.004), sparse_probe(b, 0.004)
    exact = a.double() @ b.double()
    serial = measure_error([serial_sum(a, b)], [exact]).rms
    rounded = measure_error([(a.half().double() @ b.half().double()).float()], [exact]).rms
    assert serial < rounded / 500


def test_the_worst_element_is_named():
    want = torch.ones(4, 4)
    got = want.clone()
    got[1, 2], got[3, 3] = 1.5, 9.0

    mismatch = find_mismatch([got], [want.double()], [want], 1e-4)

    assert (mismatch.index, mismatch.actual, mismatch.expected) == ((3, 3), 9.0, 1.0)
    assert (mismatch.num_wrong, mismatch.num_elements) == (2, 16)


def test_small_outputs_get_a_small_tolerance():
    want = torch.full((8,), 1e-6)

    assert find_mismatch([torch.zeros(8)], [want.double()], [want], 1e-4) is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_wrong_where_the_reference_is(value: float):
    want = torch.ones(4)
    got = torch.tensor([1.0, value, 1.0, 1.0])

    assert find_mismatch([got], [want.double()], [want], 1e-4).index == (1,)


def test_integers_have_to_be_equal():
    want = torch.tensor([1, 2, 3])

    assert find_mismatch([torch.tensor([1, 2, 4])], [want], [want], 1.0).index == (2,)
    assert find_mismatch([want.clone()], [want], [want], 0.0) is None


def test_a_sparse_probe_keeps_symmetry_and_zeros():
    torch.manual_seed(0)
    square = torch.rand(64, 64)
    symmetric = square + square.mT
    triangular = torch.tril(square)

    probe = sparse_probe(symmetric, 0.25)
    assert torch.equal(probe, probe.mT)
    assert torch.equal(torch.triu(sparse_probe(triangular, 0.25), 1), torch.zeros(64, 64))
    assert 0 < int((probe != 0).sum()) < 64 * 64


def test_an_honest_order_of_summation_is_right_beside_the_references_own_rounding():
    """Checked against the reference alone, elements near zero differ by both answers' rounding."""
    torch.manual_seed(0)
    a, b = torch.randn(256, 8192), torch.randn(8192, 256)
    exact, own = a.double() @ b.double(), a @ b
    other = sum(a[:, k : k + 117] @ b[k : k + 117] for k in range(0, 8192, 117))

    errors = largest_errors([own], [exact])

    assert errors == (float((own.double() - exact).abs().max()),)
    assert find_mismatch([other], [own], [own], 1e-6) is not None
    assert find_mismatch([other], [own], [own], 1e-6, errors) is None
    assert find_mismatch([other + 64 * errors[0]], [own], [own], 1e-6, errors) is not None


@pytest.mark.parametrize("piece", [1, 7, 2**20])
def test_large_outputs_are_compared_piece_by_piece(piece: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compare, "_PIECE_ELEMENTS", piece)
    torch.manual_seed(0)
    want = torch.randn(37, 5, dtype=torch.float64)
    own = want.float()
    got = own.clone()
    got[20, 3], got[36, 4], got[2, 0] = 50.0, -90.0, float("nan")
    want[4, 4] = own[4, 4] = float("inf")
    got[4, 4] = float("nan")

    mismatch = find_mismatch([got], [want], [own], 1e-4)

    assert (mismatch.index, mismatch.num_wrong) == ((2, 0), 3)
    error = measure_error([torch.full_like(own, 2.0)], [torch.full_like(want, 1.0)])
    assert (error.rms, error.median) == (1.0, 1.0)
    assert find_mismatch([own], [want], [own], 1e-4) is None


def test_a_scalar_output_has_an_empty_index():
    assert find_mismatch([torch.tensor(2.0)], [torch.tensor(1.0)], [torch.tensor(1.0)], 1e-4).index == ()
