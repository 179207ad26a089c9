"""Products in a lower precision, told by their error where its size hides it."""

import pytest
import torch

from kbopt.evaluation.judge.correlation import HiddenRounding, follows
from kbopt.evaluation.judge.products import Rounding, cut_mantissa, rounded_exactly
from kbopt.evaluation.judge.reference import Reference
from kbopt.evaluation.judge.sensitivity import find_sensitivity
from tests.evaluation.test_precision import reference

HIDING = ("subtract", "offset", "softmax", "maximum")
KINDS: tuple[Rounding, ...] = ("tf32", "tf32 cut off", "half")


def answers_follow(judged: Reference, kind: Rounding, seed: int, how: Rounding | None) -> bool:
    """Whether an answer whose operands are rounded by `how` shows `kind`."""
    draw = judged.draw(seed)
    exact, own = judged.run_exact(draw).tensors[0], judged.run(draw.arguments()).tensors[0]
    lower = rounded_exactly(judged, draw, kind)
    got = own if how is None else rounded_exactly(judged, draw, how)
    assert lower is not None
    assert got is not None
    got = got if isinstance(got, torch.Tensor) else got.tensors[0].float()
    return follows(got, lower.tensors[0], own, exact)


@pytest.mark.parametrize("what", HIDING)
@pytest.mark.parametrize("kind", KINDS)
def test_products_in_a_lower_precision_show_below_what_hides_their_size(what: str, kind: Rounding) -> None:
    judged = reference(f"hidden_{what}")
    for seed in range(3):
        assert answers_follow(judged, kind, seed, kind)
        assert not answers_follow(judged, kind, seed, None)


@pytest.mark.parametrize("what", HIDING)
def test_splits_show_nothing(what: str) -> None:
    """What three products in TF32 leave out: the product of what TF32 cuts off both operands."""
    judged = reference(f"hidden_{what}")
    draw = judged.draw(1)
    exact, own = judged.run_exact(draw), judged.run(draw.arguments())
    for kind in KINDS:
        lower = rounded_exactly(judged, draw, kind)
        assert lower is not None
        split = exact.tensors[0] + (lower.tensors[0] - exact.tensors[0]) * 2.0**-10
        assert not follows(split.float(), lower.tensors[0], own.tensors[0], exact.tensors[0])


def test_one_rounded_operand_of_two_shows() -> None:
    judged = reference("hidden_offset")
    draw = judged.draw(1)
    exact, own = judged.run_exact(draw).tensors[0], judged.run(draw.arguments()).tensors[0]
    lower = rounded_exactly(judged, draw, "tf32 cut off")
    model = judged.model
    got = cut_mantissa(draw.tensors[0], 10) @ model.get_parameter("weight") + model.get_parameter("offset")
    assert lower is not None
    assert follows(got.detach(), lower.tensors[0], own, exact)


def test_an_error_that_follows_the_answer_is_another() -> None:
    torch.manual_seed(0)
    exact = torch.randn(4096).double()
    rounding = exact * 3e-6 + 1e-6 + 1e-7 * torch.randn(4096)
    assert not follows(exact * (1 + 3e-6) + 1e-6, exact + rounding, exact, exact)
    assert follows(exact + rounding, exact + rounding, exact, exact)


@pytest.mark.parametrize("rounding", [1e-9, 0.0])
def test_a_rounding_smaller_than_the_references_own_is_nobodys_concern(rounding: float) -> None:
    torch.manual_seed(0)
    exact, noise = torch.randn(2, 4096).double()
    lower = exact + rounding * noise
    assert not follows(lower, lower, exact + 1e-8 * torch.randn(4096), exact)


def test_few_different_elements_show_nothing() -> None:
    exact = torch.arange(8.0).double().repeat(64)
    lower = exact + 1e-3 * exact.cos()
    assert not follows(lower, lower, exact, exact)


def test_four_answers_in_a_row_have_to_show_it() -> None:
    judged = reference("hidden_offset")
    hidden = HiddenRounding(judged, KINDS)

    def found(number: int, *, is_lower: bool) -> str:
        draw = judged.draw(number)
        exact, own = judged.run_exact(draw), judged.run(draw.arguments())
        lower = rounded_exactly(judged, draw, "half")
        assert lower is not None
        return hidden.found(draw, [t.float() for t in lower.tensors] if is_lower else own.tensors, own, exact)

    # The kinds come in turn, and one that was seen in each call.
    assert [found(number, is_lower=True) for number in range(6)] == ["", "", "", "", "", "half"]
    assert hidden.is_pending
    assert found(6, is_lower=False) == ""
    assert not hidden.is_pending
    assert [found(number, is_lower=True) for number in range(7, 10)] == ["", "", ""]


def test_a_task_whose_own_inputs_show_its_precision_needs_no_comparison() -> None:
    assert find_sensitivity(reference("matmul"), 1).hidden == ()
    assert find_sensitivity(reference("rowwise"), 1).hidden == ()
    assert find_sensitivity(reference("hidden_offset"), 1).hidden == KINDS


def test_a_task_whose_output_has_few_different_elements_or_rounds_coarsely_cannot_show_it() -> None:
    assert find_sensitivity(reference("hidden_mean"), 1).hidden == ()
    assert find_sensitivity(reference("summed_sigmoids"), 1).hidden == ("half",)
