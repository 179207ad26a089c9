"""Right answers, wrong answers and lower precisions, told apart on tensors."""

import math

import pytest
import torch

from kbopt.evaluation.judge.errors import (
    describe_bias,
    is_downgrade,
    measure_error,
    most_moved,
    moved,
    sparse_probe,
)
from kbopt.evaluation.judge.slack import Slack
from kbopt.evaluation.judge.tolerance import (
    accepts,
    extents,
    find_mismatch,
    is_finite,
    largest_errors,
    wide,
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
    monkeypatch.setattr("kbopt.evaluation.judge.tolerance._PIECE_ELEMENTS", {"cpu": piece})
    torch.manual_seed(0)
    want = torch.randn(37, 5, dtype=torch.float64)
    own = want.float()
    got = own.clone()
    got[20, 3], got[36, 4], got[2, 0] = 50.0, -90.0, float("nan")
    want[4, 4] = own[4, 4] = got[4, 4] = float("inf")

    mismatch = find_mismatch([got], [want], [own], 1e-4)

    assert (mismatch.index, mismatch.num_wrong) == ((2, 0), 3)
    error = measure_error([torch.full_like(own, 2.0)], [torch.full_like(want, 1.0)])
    assert (error.rms, error.median) == (1.0, 1.0)
    assert find_mismatch([own], [want], [own], 1e-4) is None


def test_a_scalar_output_has_an_empty_index():
    assert find_mismatch([torch.tensor(2.0)], [torch.tensor(1.0)], [torch.tensor(1.0)], 1e-4).index == ()


def mismatch_of(got: torch.Tensor, want: torch.Tensor, **more):
    """Against a reference that is right."""
    exact = want.double() if want.is_floating_point() and want.dtype.itemsize > 1 else want
    return find_mismatch([got], [exact], [want], 1e-4, **more)


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("right", [NAN, INF, -INF])
@pytest.mark.parametrize("wrong", [NAN, INF, -INF, 0.0, 6e4])
def test_a_nan_is_met_by_a_nan_only_and_an_infinity_by_its_own_sign(right: float, wrong: float, dtype):
    want = torch.tensor([1.0, right, 2.0], dtype=dtype)
    got = torch.tensor([1.0, wrong, 2.0], dtype=dtype)

    assert mismatch_of(want.clone(), want) is None
    same = wrong == right or (wrong != wrong and right != right)
    assert (mismatch_of(got, want) is None) is same


def test_where_the_reference_overflows_its_own_answer_and_the_true_one_are_right():
    want = torch.tensor([1.0, 70000.0], dtype=torch.float64)
    own = torch.tensor([1.0, INF], dtype=torch.float16)

    def accepts(value: float) -> bool:
        got = torch.tensor([1.0, value], dtype=torch.float32)
        return find_mismatch([got], [want], [own], 1e-2) is None

    assert [accepts(value) for value in (INF, 70010.0, NAN, -INF, 60000.0)] == [True, True] + 3 * [False]


def test_an_infinity_that_float64_alone_has_excuses_no_other_element():
    """The reference's distance from it is no error of the reference's."""
    want = torch.tensor([INF, 1.0, 2.0], dtype=torch.float64)
    own = torch.tensor([3e38, 1.0, 2.0])

    assert find_mismatch([own.clone()], [want], [own], 1e-4) is None
    assert find_mismatch([torch.tensor([3e38, 1.0, 2.5])], [want], [own], 1e-4).index == (2,)
    assert largest_errors([own], [want]) == (0.0,)


def test_complex_answers_are_compared_by_their_distance():
    torch.manual_seed(0)
    x = torch.randn(8, 512)
    exact, own = torch.fft.fft(x.double()), torch.fft.fft(x)
    turned = exact * torch.exp(torch.tensor(1e-3j, dtype=torch.complex128))

    assert find_mismatch([torch.fft.fft(x.double()).to(torch.complex64)], [exact], [own], 1e-4) is None
    assert find_mismatch([turned.to(torch.complex64)], [exact], [own], 1e-4) is not None
    assert find_mismatch([own * 1.5], [exact], [own], 1e-4).num_wrong > 4000
    assert "got" in str(find_mismatch([own.conj().resolve_conj()], [exact], [own], 1e-4))
    reference = measure_error([own], [exact])
    assert 0 < reference.rms < 1e-6
    rounded = torch.fft.fft(x.half().float())
    assert is_downgrade(measure_error([rounded], [exact]), reference, "fp32")


@pytest.mark.parametrize(
    ("part", "found"), [(complex(INF, 1.0), None), (complex(-INF, 1.0), (1,)), (complex(INF, 5), (1,))]
)
def test_a_complex_number_that_is_not_finite_is_compared_part_by_part(part: complex, found):
    want = torch.tensor([1 + 1j, complex(INF, 1.0)], dtype=torch.complex64)
    got = torch.tensor([1 + 1j, part], dtype=torch.complex64)

    mismatch = find_mismatch([got], [want.to(torch.complex128)], [want], 1e-4)

    assert (mismatch and mismatch.index) == found


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"])
def test_floats_of_eight_bits_are_compared_by_their_values(name: str):
    want = torch.tensor([0.0, 1.0, 2.0, NAN]).to(getattr(torch, name))
    got = torch.tensor([-0.0, 1.0, 2.0, NAN]).to(getattr(torch, name))
    other = torch.tensor([0.0, 1.0, 2.5, NAN]).to(getattr(torch, name))

    assert mismatch_of(got, want) is None
    assert mismatch_of(other, want).index == (2,)
    assert "expected 2, got 2.5" in str(mismatch_of(other, want))
    assert measure_error([other], [want]).rms == 0.0


@pytest.mark.parametrize("name", ["uint16", "uint32", "uint64", "uint8", "bool", "int64"])
def test_unsigned_integers_are_compared(name: str):
    dtype = getattr(torch, name)
    want, got = torch.tensor([1, 0, 1]).to(dtype), torch.tensor([1, 1, 1]).to(dtype)

    assert mismatch_of(want.clone(), want) is None
    assert mismatch_of(got, want).index == (1,)
    assert mismatch_of(got, want).num_wrong == 1


def test_large_integers_are_shown_in_full():
    want = torch.tensor([2**62 + 1])

    assert f"expected {2**62 + 1}, got {2**62}" in str(mismatch_of(torch.tensor([2**62]), want))


def quantised(scale: float = 127.0, rows: int = 256) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Products before they are rounded to integers: exact, and by two honest orders in fp32."""
    torch.manual_seed(1)
    a, b = torch.randn(rows, 256), torch.randn(256, 256)
    exact = a.double() @ b.double()
    other = sum(a[:, k : k + 16] @ b[k : k + 16] for k in range(0, 256, 16))
    return exact * scale, (a @ b) * scale, other * scale


def nearby_of(a_scale: float = 127.0, rows: int = 256):
    torch.manual_seed(1)
    a, b = torch.randn(rows, 256), torch.randn(256, 256)

    def answers():
        for number in range(16):
            one, two = moved([a, b], most_moved("fp32"), together=number % 2 == 1)
            yield [(one @ two * a_scale).round().to(torch.int32)]

    return answers


def test_a_tie_that_is_rounded_the_other_way_is_right():
    exact, own, other = (t.round().to(torch.int32) for t in quantised())
    assert 0 < int((other != exact).sum()) < 100
    assert find_mismatch([other], [exact], [own], 1e-4) is not None

    errors = largest_errors([own], [exact])

    assert errors[0] == int((own != exact).sum()) / exact.numel()
    assert find_mismatch([other], [exact], [own], 1e-4, errors, nearby_of()) is None


def test_one_unit_off_where_there_is_no_tie_is_wrong():
    exact, own, _ = quantised()
    far = (exact - exact.round()).abs() < 0.1
    row, column = (int(at) for at in far.nonzero()[0])
    exact, own = exact.round().to(torch.int32), own.round().to(torch.int32)
    got = own.clone()
    got[row, column] += 1

    mismatch = find_mismatch([got], [exact], [own], 1e-4, (), nearby_of())

    assert (mismatch.index, mismatch.num_wrong) == ((row, column), 1)


def test_many_ties_that_are_decided_otherwise_are_another_precision():
    exact, own, _ = quantised()
    torch.manual_seed(1)
    a, b = torch.randn(256, 256), torch.randn(256, 256)
    half = ((a.half().float() @ b.half().float()) * 127).round().to(torch.int32)
    exact, own = exact.round().to(torch.int32), own.round().to(torch.int32)

    assert (
        find_mismatch([half], [exact], [own], 1e-4, largest_errors([own], [exact]), nearby_of()) is not None
    )


def test_inputs_are_moved_by_no_more_than_an_honest_kernel_errs():
    x, index = torch.randn(1000), torch.arange(5)

    for together in (False, True):
        torch.manual_seed(0)
        wide, same = moved([x, index], most_moved("fp32"), together=together)
        relative = wide / x.double() - 1
        assert 0 < float(relative.abs().max()) <= 128 * 2.0**-24
        assert together == bool((relative > 0).all() or (relative < 0).all())
        assert torch.equal(same, index)


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (0.99, "all elements are 1.0 % too small"),
        (1.01, "all elements are 1.0 % too large"),
        (1.0005, "all elements are 0.05 % too large"),
        (2.0, "all elements are 100.0 % too large"),
    ],
)
def test_one_factor_on_all_elements_is_named(factor: float, words: str):
    torch.manual_seed(0)
    exact = torch.softmax(torch.randn(64, 1024, dtype=torch.float64), 1)

    assert describe_bias([exact.float() * factor], [exact]) == words
    assert describe_bias([torch.fft.fft(exact).to(torch.complex64) * factor], [torch.fft.fft(exact)]) == words


@pytest.mark.parametrize("bits", [13, 16])
def test_numbers_that_are_cut_off_are_a_precision_and_no_factor(bits: int):
    """Cutting bits off always makes them smaller, so that a sum of them is so by nearly one factor."""
    torch.manual_seed(0)
    a, b = torch.rand(64, 4096), torch.rand(4096, 64)

    def cut(x: torch.Tensor) -> torch.Tensor:
        return (x.view(torch.int32) & -(2**bits)).view(torch.float32)

    assert describe_bias([cut(a) @ cut(b)], [a.double() @ b.double()]) == ""


def test_a_factor_on_a_part_of_the_elements_or_on_none_is_not_one_on_all():
    torch.manual_seed(0)
    exact = torch.randn(64, 256, dtype=torch.float64).relu() + 0.5
    sharp = torch.softmax(20 * torch.randn(64, 256, dtype=torch.float64), 1)

    assert describe_bias([exact.where(exact > 0.5, 0.501).float()], [exact]) == ""
    assert describe_bias([sharp.pow(20).float()], [sharp]) == ""


@pytest.mark.parametrize("got", [torch.zeros(64), -torch.ones(64), torch.ones(64), torch.full((64,), NAN)])
def test_zeros_and_other_signs_are_no_factor(got: torch.Tensor):
    assert describe_bias([got], [torch.ones(64, dtype=torch.float64)]) == ""


@pytest.mark.parametrize("factor", [2.0, 1 + 2.0**-23])
def test_a_single_number_is_off_by_no_factor(factor: float):
    """Its error by rounding was told of all elements, before the element of another output."""
    exact = torch.tensor(3.0, dtype=torch.float64)

    assert describe_bias([exact.float() * factor], [exact]) == ""


@pytest.mark.parametrize("turned", [False, True])
def test_the_worst_element_is_found_in_whatever_piece_it_lies(turned: bool):
    own = torch.rand(700, 300)
    own = own.T if turned else own
    got, exact = own.clone(), own.double()
    at = (got.shape[0] - 2, 5)
    got[0, 0] += 1.0
    got[at] += 2.0
    mismatch = find_mismatch([got], [exact], [own], 1e-4)
    assert mismatch is not None
    assert (mismatch.index, mismatch.num_wrong, mismatch.num_elements) == (at, 2, 210_000)


@pytest.mark.parametrize("value", [0.0, 1.5, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("truth", [1.0, math.inf, math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.complex64])
def test_an_answer_is_accepted_if_nothing_in_it_is_wrong(value: float, truth: float, dtype: torch.dtype):
    own = torch.rand(2**17).to(dtype)
    own[-1] = truth
    exact = wide(own)
    known = extents([own], [exact])
    got = own.clone()
    assert accepts([got], [exact], [own], 1e-4, known)
    got[-1] = value
    found = find_mismatch([got], [exact], [own], 1e-4)
    assert accepts([got], [exact], [own], 1e-4, known) is (found is None)
    is_same = value == truth or (math.isnan(value) and math.isnan(truth))
    assert (found is None) is is_same


@pytest.mark.parametrize("shape", [(), (1,), (2,)])
def test_answers_whose_squares_overflow_are_compared(shape: tuple[int, ...]):
    """The one element of a sum that fp32 cannot hold, beside its float64 answer."""
    own, exact = torch.full(shape, math.inf), torch.full(shape, 1e200, dtype=torch.float64)

    assert find_mismatch([own], [exact], [own], 1e-4) is None
    assert find_mismatch([torch.ones(shape)], [exact], [own], 1e-4).num_wrong == own.numel()
    assert extents([own], [exact]) == [(0.0, Slack(most=0.0))]
    assert measure_error([own], [exact]).rms == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
def test_a_tensor_is_finite_if_each_of_its_elements_is(dtype: torch.dtype):
    tensor = torch.rand(2**16 + 7, dtype=torch.float32).to(dtype)
    assert is_finite(tensor)
    assert is_finite(tensor[:0])
    for value in (math.inf, -math.inf, math.nan):
        tensor[-3] = value
        assert not is_finite(tensor)


def test_the_rounding_of_large_elements_excuses_no_smaller_ones():
    """The reference errs by 0.06 where it is 1e6, and by 1e-8 where it is one."""
    torch.manual_seed(0)
    exact = torch.exp(4.0 * torch.randn(2**14, dtype=torch.float64))
    own = exact.float()
    other = (exact * (1.0 + 6e-7 * torch.randn(2**14))).float()
    zeros = torch.where(exact < 0.5, 0.0, own)

    assert 16 * largest_errors([own], [exact])[0] > 0.5
    assert find_mismatch([other], [exact], [own], 1e-4) is None
    mismatch = find_mismatch([zeros], [exact], [own], 1e-4)
    assert mismatch is not None
    assert mismatch.num_wrong > 6000


def test_a_sum_may_err_by_as_much_where_its_terms_cancel():
    """Most of its elements are far from zero, and those near zero err as much as they do."""
    torch.manual_seed(0)
    a, b = torch.randn(64, 2**15), torch.randn(2**15, 64)
    exact, own = a.double() @ b.double(), a @ b
    serial = torch.stack([(a[:, k::64].unsqueeze(-1) * b[k::64]).sum(1) for k in range(64)]).cumsum(0)[-1]

    assert find_mismatch([serial], [exact], [own], 1e-7) is None


def test_a_product_that_is_rounded_to_bf16_in_parts_is_right_where_its_terms_cancel():
    torch.manual_seed(0)
    a, b = torch.randn(256, 256).bfloat16(), torch.randn(256, 256).bfloat16()
    exact, own = a.double() @ b.double(), a @ b
    parts = sum(a[:, k : k + 64] @ b[k : k + 64] for k in range(0, 256, 64))

    assert find_mismatch([parts], [exact], [own], 1e-2) is None
