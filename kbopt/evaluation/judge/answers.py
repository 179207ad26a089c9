"""What an answer has to look like before its values are compared. Raises `Refused` with the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from kbopt.core.types import Outcome, Rejected, WrongAnswer
from kbopt.evaluation.judge.admission import same_bits
from kbopt.evaluation.judge.reference import Output
from kbopt.evaluation.judge.replies import Answer
from kbopt.evaluation.transport.layout import TensorSpec, is_dense, is_separate


class Refused(Exception):
    """The verdict is known; `outcome` is it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


def require_separate(outputs: Sequence[Answer], inputs: range | None) -> None:
    """No output may lie in the addresses of the `inputs`, nor in the memory of another call's."""
    spans: list[range] = []
    for output in outputs:
        if output.unusable:
            reason = f"it returns a {output.unusable}; only plain tensors are accepted"
            raise Refused(Rejected(reason=reason, family="output_type"))
        spans += _joined([place.span for place in output.places if place.span])
    if inputs is not None and any(span.start < inputs.stop and inputs.start < span.stop for span in spans):
        reason = "it returns the memory of an input instead of an output"
        raise Refused(Rejected(reason=reason, family="aliased_input"))
    spans.sort(key=lambda span: span.start)
    if len(outputs) > 1 and any(one.stop > two.start for one, two in pairwise(spans)):
        reason = (
            "two calls return the same memory, so that the later result overwrites the earlier one; to copy "
            f"the output would move {2 * len(spans[0]) / 1e6:.4g} MB a call, and --outputs reusable "
            f"accepts it "
            "as it is"
        )
        raise Refused(Rejected(reason=reason, family="reused_output"))


def _joined(spans: list[range]) -> list[range]:
    """Those of one call, which may return several views of one buffer, where they overlap as one."""
    joined: list[range] = []
    for span in sorted(spans, key=lambda span: span.start):
        if joined and span.start < joined[-1].stop:
            joined[-1] = range(joined[-1].start, max(joined[-1].stop, span.stop))
        else:
            joined.append(span)
    return joined


def notes_on_form(output: Answer, expected: Output) -> list[str]:
    """What is allowed in the form of an answer, and not what the reference does."""
    return [
        f"Output {number} is a view with gaps, strides {list(place.spec.stride)}: whoever reads it next pays."
        for number, (place, want) in enumerate(zip(output.places, expected.tensors, strict=True))
        if is_dense(want.shape, want.stride()) and not is_dense(place.spec.shape, place.spec.stride)
    ]


def require_form(output: Answer, expected: Output) -> None:
    """Structure, shape, dtype and device as the reference has them, and memory for each element."""
    if output.skeleton != expected.skeleton or len(output.places) != len(expected.tensors):
        raise Refused(WrongAnswer(reason="it returns another structure than the reference does"))
    for number, (place, want) in enumerate(zip(output.places, expected.tensors, strict=True)):
        spec, wanted, device = place.spec, TensorSpec.of(want), place.device
        if spec.shape != wanted.shape or spec.dtype != wanted.dtype or device != want.device.type:
            seen = f"{spec.dtype}{list(spec.shape)} on {device}"
            allowed = f"{wanted.dtype}{list(wanted.shape)} on {want.device.type}"
            raise Refused(WrongAnswer(reason=f"output {number} is {seen}; {allowed} is expected"))
        if is_separate(wanted.shape, wanted.stride) and not is_separate(spec.shape, spec.stride):
            reason = f"output {number} has strides {list(spec.stride)}: not every element has its own memory"
            raise Refused(Rejected(reason=reason, family="output_layout"))


def require_unchanged(seen: Sequence[torch.Tensor], originals: Sequence[torch.Tensor]) -> None:
    """The inputs are what they were."""
    if not all(same_bits(now, then) for now, then in zip(seen, originals, strict=True)):
        reason = "it writes to its inputs, which the reference does not"
        raise Refused(Rejected(reason=reason, family="input_mutation"))
