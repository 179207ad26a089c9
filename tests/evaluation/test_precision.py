"""Where a lower precision shows, on small tasks on the CPU."""

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kbopt.core.protocol import EvalProtocol, Precision
from kbopt.evaluation.judge.admission import admit
from kbopt.evaluation.judge.answers import Refused
from kbopt.evaluation.judge.checks import Checks
from kbopt.evaluation.judge.errors import Error, measure_error, moved, unit_in_the_last_place
from kbopt.evaluation.judge.precision import Sensitive
from kbopt.evaluation.judge.probes import DENSE, Probe
from kbopt.evaluation.judge.products import (
    arithmetic_of_kernel,
    cut_mantissa,
    errors_in_tf32,
    plain,
    round_mantissa,
    rounded,
)
from kbopt.evaluation.judge.reference import Draw, Reference
from kbopt.evaluation.judge.sensitivity import _tried, find_sensitivity
from kbopt.evaluation.judge.tolerance import find_mismatch
from tests.adversarial.case import load_task
from tests.adversarial.cases import HIDDEN


def reference(name: str, **protocol: object) -> Reference:
    return Reference(load_task(name).source, EvalProtocol(**protocol), torch.device("cpu"), 7)


def test_a_mantissa_is_rounded_to_nearest_and_ties_to_even() -> None:
    ulp = 2.0**-10
    values = torch.tensor(
        [1.0, 1 + 0.4 * ulp, 1 + 0.5 * ulp, 1 + 0.6 * ulp, 1 + 1.5 * ulp, -1 - 0.6 * ulp, 0.0]
    )
    wanted = torch.tensor([1.0, 1.0, 1.0, 1 + ulp, 1 + 2 * ulp, -1 - ulp, 0.0])
    assert torch.equal(round_mantissa(values, 10), wanted)


def test_a_mantissa_is_cut_off_towards_zero() -> None:
    ulp = 2.0**-10
    values = torch.tensor([1.0, 1 + 0.9 * ulp, -1 - 1.6 * ulp, 0.0])
    assert torch.equal(cut_mantissa(values, 10), torch.tensor([1.0, 1.0, -1 - ulp, 0.0]))
    assert cut_mantissa(torch.arange(5), 10).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("keep", [round_mantissa, cut_mantissa])
def test_tensor_cores_that_cut_operands_off_are_as_near_as_tf32_gets(
    keep: Callable[[torch.Tensor, int], torch.Tensor],
) -> None:
    """Sums that are far from zero: what is cut off adds up, and rounding to nearest cancels."""
    torch.manual_seed(0)
    left, right = 3 * torch.rand(256, 4096), torch.rand(4096, 256) + 1
    judged = reference("matmul")
    draw = Draw(skeleton=judged.draw(0).skeleton, tensors=(left, right))
    exact, own = judged.run_exact(draw), judged.run(draw.arguments())

    found = find_mismatch(
        [keep(left, 10) @ keep(right, 10)],
        exact.tensors,
        own.tensors,
        1e-4,
        moved_errors=errors_in_tf32(judged, draw, exact),
    )

    assert found is None


@pytest.mark.parametrize(("are_positive", "is_sensitive"), [(False, True), (True, False)])
def test_a_probe_that_refuses_half_precision_lets_tf32_cut_off_pass(
    are_positive: bool, is_sensitive: bool
) -> None:
    """Where all terms have one sign, tensor cores that cut operands off err more than bf16 does."""
    torch.manual_seed(0)
    left, right = torch.randn(256, 4096), torch.randn(4096, 256)
    if are_positive:
        left, right = left.abs(), right.abs()
    judged = reference("matmul")
    draw = Draw(skeleton=judged.draw(0).skeleton, tensors=(left, right))

    trial = _tried(judged, DENSE, draw, True)
    found = trial.sensitive if trial else None

    assert (found is not None) is is_sensitive
    if found is not None:
        exact = judged.run_exact(draw)
        cut, half = (
            measure_error([keep(left, bits) @ keep(right, bits)], exact.tensors)
            for keep, bits in ((cut_mantissa, 10), (round_mantissa, 7))
        )
        assert not found.refuses(cut, error(3e-7))
        assert found.refuses(half, error(3e-7))


def test_bf16_is_what_seven_bits_of_mantissa_are() -> None:
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(round_mantissa(values, 7), values.bfloat16().float())


def test_whole_numbers_have_no_mantissa_to_round() -> None:
    values = torch.arange(5)
    assert round_mantissa(values, 7) is values


@pytest.mark.parametrize("task", ["matmul", "rowwise", "elementwise"])
def test_a_task_whose_output_shows_its_precision_needs_no_other_inputs(task: str) -> None:
    assert [s.probe for s in find_sensitivity(reference(task), 1).probes] == [DENSE]


@pytest.mark.parametrize("what", HIDDEN)
def test_what_an_output_hides_shows_on_other_inputs_or_parameters(what: str) -> None:
    probes = find_sensitivity(reference(f"hidden_{what}"), 1).probes
    assert probes
    assert not any(s.tf32_rms for s in probes)


def test_where_no_inputs_refuse_tf32_a_probe_can_still_tell_fp32_from_it() -> None:
    """As in level2/56 of KernelBench: a sum hides what its many terms err."""
    judged = reference("summed_sigmoids")

    found = find_sensitivity(judged, 1)

    assert all(sensitive.probe.changes_parameters for sensitive in found.probes)
    telling = found.telling
    assert telling is not None
    assert not telling.probe.changes_parameters
    draw = telling.probe.inputs(judged.draw(2))
    exact, own = judged.run_exact(draw), plain(judged, draw)
    in_fp32, in_tf32 = (
        measure_error(output.tensors, exact.tensors) for output in (own, rounded(judged, draw, "tf32"))
    )
    assert telling.shows_fp32(in_fp32, in_fp32)
    assert not telling.shows_fp32(in_tf32, in_fp32)


@pytest.mark.parametrize("task", ["matmul", "hidden_saturation"])
def test_a_task_with_a_sensitive_probe_on_inputs_needs_no_telling_one(task: str) -> None:
    assert find_sensitivity(reference(task), 1).telling is None


def test_the_parameters_are_afterwards_what_they_were() -> None:
    judged = reference("hidden_offset")
    before = {name: tensor.clone() for name, tensor in judged.parameters().items()}
    find_sensitivity(judged, 1)
    assert all(torch.equal(before[name], tensor) for name, tensor in judged.parameters().items())


def test_operands_are_the_parameters_that_products_take() -> None:
    assert find_sensitivity(reference("hidden_offset"), 1).operands == {"weight"}


def test_tasks_in_half_precision_are_probed_for_products_in_eight_bits() -> None:
    of_inputs, of_both = (
        find_sensitivity(reference(name, precision="bf16"), 1).probes for name in ("matmul", "layers")
    )
    assert [one.probe.heavy for one in of_inputs] == ["inputs"]
    assert [one.probe.heavy for one in of_both] == ["inputs", "weights"]
    assert find_sensitivity(reference("rowwise", precision="fp16"), 1).probes == ()


@pytest.mark.parametrize(
    ("precision", "own", "rms", "is_refused"),
    [
        ("bf16", 0.0015, 0.012, False),
        ("bf16", 0.0015, 0.03, True),
        ("fp16", 0.0002, 0.001, False),
        ("fp16", 0.00025, 0.002, True),
    ],
)
def test_an_error_of_several_roundings_is_allowed_on_a_probe(
    precision: Precision, own: float, rms: float, is_refused: bool
) -> None:
    """Products in bf16 err by 0.002 to 0.003 in a task in fp16."""
    probe = find_sensitivity(reference("matmul", precision=precision), 1).probes[0]
    assert probe.refuses(Error(rms=rms, median=rms), Error(rms=own, median=own)) is is_refused


@pytest.mark.parametrize("task", ["matmul", "long_product"])
@pytest.mark.parametrize("seed", range(3))
def test_products_in_bf16_show_in_fp16_and_partial_sums_in_fp16_pass(task: str, seed: int) -> None:
    judged = reference(task, precision="fp16")
    sensitive = find_sensitivity(judged, 1).probes[0]
    draw = sensitive.probe.inputs(judged.draw(seed))
    left, right = draw.tensors
    exact = judged.run_exact(draw).tensors
    own, in_bf16, in_parts = (
        measure_error([answer], exact)
        for answer in (
            left @ right,
            (left.bfloat16() @ right.bfloat16()).half(),
            sum(a @ b for a, b in zip(left.chunk(16, 1), right.chunk(16, 0), strict=True)),
        )
    )
    assert sensitive.refuses(in_bf16, own)
    assert not sensitive.refuses(in_parts, own)


def test_additive_parameters_are_zero_and_weights_of_norms_are_not() -> None:
    judged = reference("hidden_offset")
    probe = Probe(name="", zero_additive=True, weight_scale=2.0)
    changed = probe.parameters(judged, frozenset({"weight"}))
    assert torch.equal(changed["weight"], 2 * judged.parameters()["weight"])
    assert not changed["offset"].any()


def error(rms: float) -> Error:
    return Error(rms=rms, median=rms)


def test_where_tf32_is_allowed_its_error_is_the_yardstick() -> None:
    sensitive = Sensitive(probe=DENSE, tf32_rms=3e-4)
    own = error(3e-7)  # cuDNN chose fp32 for the reference.
    assert not sensitive.refuses(error(6e-4), own)
    assert sensitive.refuses(error(24e-4), own)
    assert sensitive.shows_fp32(error(1e-6), own)
    assert not sensitive.shows_fp32(error(3e-4), own)


def test_where_tf32_is_not_allowed_it_is_refused() -> None:
    sensitive = Sensitive(probe=DENSE)
    assert sensitive.refuses(error(3e-4), error(3e-7))
    assert not sensitive.refuses(error(3e-6), error(3e-7))


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)]
)
def test_inputs_that_move_by_a_unit_in_the_last_place_are_other_inputs_once_rounded(
    precision: Precision, dtype: torch.dtype
) -> None:
    inputs = torch.randn(10_000).to(dtype)
    (others,) = moved([inputs], unit_in_the_last_place(precision), together=False)
    rounded = others.to(dtype)
    assert float((rounded != inputs).float().mean()) > 0.3
    assert float(((rounded - inputs).abs() / inputs.abs()).max()) <= 3.0 * torch.finfo(dtype).eps


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("ampere_sgemm_128x64_nn", []),
        ("cutlass_80_tensorop_s1688gemm_128x128_16x4_nn_align4", ["tf32"]),
        ("sm80_xmma_gemm_f32f32_tf32f32_f32_nn_n_tilesize64x64x64", ["tf32"]),
        ("cutlass_80_tensorop_f16_s16816gemm_f16_128x128_32x4_nn", ["half"]),
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT", ["half"]),
        ("sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32_nchwkcrs_nchw", []),
        ("void at::native::vectorized_elementwise_kernel<4, ...>", []),
    ],
)
def test_names_of_library_kernels_tell_their_arithmetic(name: str, kinds: list[str]) -> None:
    assert [line.partition(":")[0] for line in arithmetic_of_kernel(name)] == kinds


def test_a_model_whose_function_calls_its_modules_has_a_float64_answer() -> None:
    """A copy's function calls the modules of the first model, which are in fp32."""
    judged = reference("closed_over")
    draw = judged.draw(1)

    exact, own = judged.run_exact(draw), judged.run(draw.arguments())

    assert judged.has_exact
    assert exact.tensors[0].dtype is torch.float64
    assert 0 < measure_error(own.tensors, exact.tensors).rms < 1e-6
    assert find_sensitivity(judged, 1).probes


def test_a_model_that_refuses_float64_is_made_anew_once_alone() -> None:
    judged = reference("recurrent")
    draw = judged.draw(1)
    assert judged.run_exact(draw).tensors[0].dtype is torch.float32
    assert not judged.has_exact
    twin = judged.exact
    assert judged.run_exact(draw).tensors[0].dtype is torch.float32
    assert judged.exact is twin


@pytest.mark.parametrize(
    ("precision", "seen", "is_excused"),
    [
        ("fp32", "tf32: HGMMA in a.cubin", True),
        ("bf16", "half: mm on float8_e4m3fn", False),
        ("fp16", "half: mm on bfloat16", False),
    ],
)
def test_an_answer_at_fp32_excuses_what_was_seen_in_fp32_alone(
    precision: Precision, seen: str, is_excused: bool
) -> None:
    judged = reference("matmul", precision=precision)
    admission = admit(judged)
    calls: Any = SimpleNamespace(expected=admission.expected, draw=lambda: judged.draw(1))
    checks = Checks(calls, judged, admission, random.Random(0), [seen])
    checks._shows_fp32 = True  # a small error on a sensitive probe says so

    if is_excused:
        checks.require_allowed_arithmetic()
    else:
        with pytest.raises(Refused):
            checks.require_allowed_arithmetic()
