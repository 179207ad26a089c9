"""Checks the form of an answer before its values are compared.

Each check raises `Refused` with the verdict if the form is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from itertools import pairwise

import torch

from kbopt.core.outcomes import Outcome, Rejected, WrongAnswer
from kbopt.evaluation.judge.admission import same_bits
from kbopt.evaluation.judge.reference import Output
from kbopt.evaluation.passes import NameOf, output_name
from kbopt.evaluation.transport.layout import Skeleton, TensorSpec, has_form, is_dense, is_separate
from kbopt.evaluation.worker_messages import CallOutput

_BRING_GRADIENTS = (
    "autograd finds no way to it from what ModelNew returns. Bring a torch.autograd.Function with a "
    "backward, or compute by differentiable operations, on parameters of the reference's names and shapes"
)


class Refused(Exception):
    """The candidate is refused. `outcome` is the verdict."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


def require_separate(
    outputs: Sequence[CallOutput], inputs: range | None, kept: Set[int] = frozenset()
) -> None:
    """Require that no output lies in the addresses of the `inputs` or in the memory of another call's output.

    `inputs` is None if the reference itself returns the memory of an input. Outputs of the numbers in `kept`
    lie in the reference's own memory, so that they may be the same in each call. Raises Refused.
    """
    spans: list[range] = []
    for output in outputs:
        if output.unusable:
            reason = f"it returns a {output.unusable}; only plain tensors are accepted"
            raise Refused(Rejected(reason=reason, family="output_type"))
        lent = [place.span for number, place in enumerate(output.places) if number not in kept]
        spans += _joined([span for span in lent if span])
    if inputs is not None and any(span.start < inputs.stop and inputs.start < span.stop for span in spans):
        reason = "it returns the memory of an input instead of an output"
        raise Refused(Rejected(reason=reason, family="aliased_input"))
    spans.sort(key=lambda span: span.start)
    if len(outputs) > 1 and any(one.stop > two.start for one, two in pairwise(spans)):
        reason = (
            "two calls return the same memory, so that the later result overwrites the earlier one; to copy "
            f"the output would move {2 * len(spans[0]) / 1e6:.4g} MB a call, and --outputs reusable "
            "accepts it as it is"
        )
        raise Refused(Rejected(reason=reason, family="reused_output"))


def _joined(spans: list[range]) -> list[range]:
    """Return the spans of one call, with overlapping ones joined: a call may return several views of one
    buffer.
    """
    joined: list[range] = []
    for span in sorted(spans, key=lambda span: span.start):
        if joined and span.start < joined[-1].stop:
            joined[-1] = range(joined[-1].start, max(joined[-1].stop, span.stop))
        else:
            joined.append(span)
    return joined


def notes_on_form(output: CallOutput, expected: Output, name_of: NameOf = output_name) -> list[str]:
    """Return notes on what is allowed in the form of an answer although the reference does otherwise."""
    return [
        f"{name_of(number).capitalize()} is a view with gaps, strides {list(place.spec.stride)}: whoever "
        "reads it next pays."
        for number, (place, want) in enumerate(zip(output.places, expected.tensors, strict=True))
        if is_dense(want.shape, want.stride()) and not is_dense(place.spec.shape, place.spec.stride)
    ]


def require_form(output: CallOutput, expected: Output, on: str, name_of: NameOf = output_name) -> None:
    """Require the structure, shapes and dtypes of the reference's answer, the kind of device that is named
    `on`, and memory of its own for each element. A list counts as a tuple. Raises Refused.
    """
    is_like = has_form(output.skeleton, expected.skeleton)
    if not is_like or len(output.places) != len(expected.tensors):
        reason = "it returns another structure than the reference does"
        missing = _missing_gradient(output.skeleton, expected.skeleton)
        if missing is not None:
            reason = f"{name_of(missing)} is missing: {_BRING_GRADIENTS}"
        raise Refused(WrongAnswer(reason=reason))
    for number, (place, want) in enumerate(zip(output.places, expected.tensors, strict=True)):
        spec, wanted, device = place.spec, TensorSpec.of(want), place.device
        if spec.shape != wanted.shape or spec.dtype != wanted.dtype or device != on:
            seen = f"{spec.dtype}{list(spec.shape)} on {device}"
            allowed = f"{wanted.dtype}{list(wanted.shape)} on {on}"
            raise Refused(WrongAnswer(reason=f"{name_of(number)} is {seen}; {allowed} is expected"))
        if is_separate(wanted.shape, wanted.stride) and not is_separate(spec.shape, spec.stride):
            strides = list(spec.stride)
            reason = f"{name_of(number)} has strides {strides}: not every element has its own memory"
            raise Refused(Rejected(reason=reason, family="output_layout"))


def _missing_gradient(seen: Skeleton, wanted: Skeleton) -> int | None:
    """Return the number of the first gradient that a call of both passes lacks.

    None if no gradient is missing, or if forward's answer has the wrong structure.
    """
    match seen, wanted:
        case {"tuple": [forward, {"list": [*got]}]}, {"tuple": [expected, {"list": [*gradients]}]}:
            missing = [place for place, gradient in enumerate(got) if gradient == {"value": None}]
            if forward == expected and len(got) == len(gradients) and missing:
                number: int = gradients[missing[0]]["tensor"]
                return number
    return None


def require_unchanged(seen: torch.Tensor, original: torch.Tensor) -> None:
    """Require that an input is equal to the original bit by bit. Raises Refused."""
    if not same_bits(seen, original):
        reason = "it writes to its inputs, which the reference does not"
        raise Refused(Rejected(reason=reason, family="input_mutation"))
