"""What an answer has to look like before its values are compared. Raises `Refused` with the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from kbopt.core.types import Outcome, Rejected, WrongAnswer
from kbopt.evaluation.admission import same_bits
from kbopt.evaluation.layout import TensorSpec, is_dense
from kbopt.evaluation.reference import Output


class Refused(Exception):
    """The verdict is known; `outcome` is it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


def require_separate(outputs: Sequence[Any], inputs: range | None) -> None:
    """No output may lie in the addresses of the `inputs`, nor in the memory of another call's."""
    spans: list[tuple[int, int]] = []
    for output in outputs:
        if "unusable" in output:
            reason = f"it returns a {str(output['unusable'])[:200]}; only plain tensors are accepted"
            raise Refused(Rejected(reason=reason, family="output_type"))
        for address, raw_spec, *_ in output["tensors"]:
            spec = TensorSpec.from_json(raw_spec)
            if spec.size_bytes:
                spans.append((address, address + spec.size_bytes))
    if inputs is not None and any(start < inputs.stop and inputs.start < end for start, end in spans):
        reason = "it returns the memory of an input instead of an output"
        raise Refused(Rejected(reason=reason, family="aliased_input"))
    spans.sort()
    if len(outputs) > 1 and any(one[1] > two[0] for one, two in pairwise(spans)):
        reason = (
            "two calls return the same memory, so that the later result overwrites the earlier one; "
            "to copy the output would "
            f"move {2 * (spans[0][1] - spans[0][0]) / 1e6:.4g} MB a call, and --outputs reusable "
            f"accepts it as it is"
        )
        raise Refused(Rejected(reason=reason, family="reused_output"))


def require_form(output: Any, expected: Output) -> None:
    """Structure, shape, dtype and device as the reference has them, and memory for each element."""
    if output.get("skeleton") != expected.skeleton or len(output["tensors"]) != len(expected.tensors):
        raise Refused(WrongAnswer(reason="it returns another structure than the reference does"))
    pairs = zip(output["tensors"], expected.tensors, strict=True)
    for number, ((_, raw_spec, device, *_), want) in enumerate(pairs):
        spec, wanted = TensorSpec.from_json(raw_spec), TensorSpec.of(want)
        if spec.shape != wanted.shape or spec.dtype != wanted.dtype or device != want.device.type:
            seen = f"{spec.dtype}{list(spec.shape)} on {device}"
            allowed = f"{wanted.dtype}{list(wanted.shape)} on {want.device.type}"
            raise Refused(WrongAnswer(reason=f"output {number} is {seen}; {allowed} is expected"))
        if is_dense(wanted.shape, wanted.stride) and not is_dense(spec.shape, spec.stride):
            reason = f"output {number} has strides {list(spec.stride)}: not every element has its own memory"
            raise Refused(Rejected(reason=reason, family="output_layout"))


def require_unchanged(seen: Sequence[torch.Tensor], originals: Sequence[torch.Tensor]) -> None:
    """The inputs are what they were."""
    if not all(same_bits(now, then) for now, then in zip(seen, originals, strict=True)):
        reason = "it writes to its inputs, which the reference does not"
        raise Refused(Rejected(reason=reason, family="input_mutation"))
