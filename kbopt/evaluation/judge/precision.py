"""Says how much precision a candidate may lose, on inputs that show the precision of a task's products.

A long sum, a normalisation, a saturated activation or a large additive term can hide the rounding of the
products before it. So the judge looks for *sensitive probes*: inputs, or other values of the parameters, on
which the reference errs visibly more once the operands of its products are rounded to a lower precision.
They are found once per task, see `sensitivity`, and tried on every candidate.

The rule for fp32 tasks, which docs/evaluation.md states for users:

- On a sensitive probe the candidate's error against float64 must stay below the probe's limit. If the task is
  computed in fp32, the limit is that of `errors.is_downgrade`: 128 times the reference's own error. If it may
  use TF32, as PyTorch's convolutions on a GPU may by default, the limit is three times the error that
  rounding to TF32 makes. Truncation makes twice that error, and bf16 eight times.
- Half precision that is seen at work, and TF32 if the reference may not use it, are refused. A candidate
  passes all the same if a sensitive probe shows the accuracy of fp32, as for splits (3xTF32, bf16x9). Where
  none is sensitive, it passes if it is far more precise than TF32 on a *telling probe*.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from kbopt.core.protocol import Precision
from kbopt.evaluation.judge import errors, values
from kbopt.evaluation.judge.errors import Error
from kbopt.evaluation.judge.probes import DENSE, SHORT_SUMS, Probe
from kbopt.evaluation.judge.products import Rounding, plain
from kbopt.evaluation.judge.reference import Draw, Output, Reference
from kbopt.evaluation.judge.steps import picked
from kbopt.evaluation.judge.task_code import TaskError
from kbopt.evaluation.numerics import DTYPES

_TF32_FACTOR = 3.0
"""A candidate's error may be this many times that of the reference in TF32, see above."""
NEARLY_RIGHT = 0.01
"""A relative error up to here may be that of a lower precision. Beyond it the answer is simply wrong."""
_HALF_LIMITS: dict[Precision, tuple[float, float]] = {"bf16": (8.0, 3.0), "fp16": (4.0, 1.5)}
"""In fp16 and bf16 a candidate's error on a probe may be the first number times the reference's, or the
second times the distance between one and the next number. A chain of operations that each round makes one
such distance, and the sum of sixteen partial sums in fp16 0.7. Integers of 8 bits with a scale for each row
make four to six in bf16, and bf16 makes two to three in fp16."""
_FP32_AGAIN = 0.125
"""A candidate is more precise than TF32 if its error is below this share of the reference's error in TF32."""
_MOST_TRIES = 4
"""Tensors and dimensions on which short sums are tried."""
_FEWEST_ELEMENTS = 16
"""Elements of the output that short sums have to change: an error of fewer says little."""
_MOST_OF_OUTPUT = 0.5
"""Share of the output's elements that short sums may change. If they change all, long sums hide them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitive:
    """A probe on which a lower precision than `precision` shows. Errors above `nearly_right` are no rounding.

    `tf32_rms` is the error of TF32 on it if the task may use TF32, else 0. The reference's own error is no
    yardstick then, because cuDNN chooses which convolutions it computes in TF32. A telling probe has it too.
    """

    probe: Probe
    tf32_rms: float = 0.0
    precision: Precision = "fp32"
    nearly_right: float = NEARLY_RIGHT

    def refuses(self, candidate: Error, own: Error) -> bool:
        """Return whether the candidate's error is so large that only a lower precision explains it."""
        if self.tf32_rms:
            return candidate.rms > _TF32_FACTOR * max(own.rms, self.tf32_rms)
        if self.precision != "fp32":
            factor, distances = _HALF_LIMITS[self.precision]
            least = distances * torch.finfo(DTYPES[self.precision]).eps
            return candidate.rms > max(factor * own.rms, least)
        return errors.is_downgrade(candidate, own, "fp32")

    def shows_fp32(self, candidate: Error, own: Error) -> bool:
        """Return whether the candidate's error is as small as that of fp32 arithmetic."""
        if self.tf32_rms:
            return candidate.rms < _FP32_AGAIN * self.tf32_rms
        return not errors.is_downgrade(candidate, own, "fp32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of an answer that are compared: a mask for each output, or None for all of them.

    `inputs` names the inputs in messages, unless they are the task's own.
    """

    masks: tuple[torch.Tensor, ...] | None = None
    inputs: str = ""

    def of(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        if self.masks is None:
            return list(tensors)
        return [picked(tensor, mask) for tensor, mask in zip(tensors, self.masks, strict=True)]


WHOLE = Parts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """How a task shows the precision of its products.

    `operands` names the parameters that products take, and `dtypes` the types of all operands.
    `telling` is the telling probe if no sensitive one changes inputs alone, and there is one.
    `hidden` has the roundings of a lower precision that the task's own inputs do not show by their size.
    `may_use_tf32` says that PyTorch may compute the reference in TF32, as it does convolutions by
    default. Then `tf32_errors` has the largest distance of each output from float64 if operands are
    rounded to TF32. `local`, if one was found, is a probe that keeps a share of the terms of a few sums, so
    that a part of the output shows the precision.
    """

    probes: tuple[Sensitive, ...] = ()
    may_use_tf32: bool = False
    operands: frozenset[str] = frozenset()
    dtypes: frozenset[str] = frozenset()
    tf32_errors: tuple[float, ...] = ()
    local: Sensitive | None = None
    telling: Sensitive | None = None
    hidden: tuple[Rounding, ...] = ()


def is_lower(
    candidate: Error, usual: Error, sensitive: Sensitive | None, precision: Precision, may_use_tf32: bool
) -> bool:
    """Return whether an error is that of a lower precision. `usual` is the reference's own on these inputs.

    The limit is that of `sensitive`, if given. Without it nobody knows the error of TF32, so if that may be
    used, no error is that of a lower precision.
    """
    if sensitive is not None:
        return sensitive.refuses(candidate, usual)
    return not may_use_tf32 and errors.is_downgrade(candidate, usual, precision)


def describe_downgrade(
    candidate: Error, usual: Error, sensitive: Sensitive | None, precision: Precision, inputs: str
) -> str:
    """Return why an error on these inputs is that of a lower precision: `usual` is the reference's own."""
    where = f" on {inputs or DENSE.name}"
    makes = "TF32" if sensitive and sensitive.tf32_rms else precision
    most = max(usual.rms, sensitive.tf32_rms if sensitive else 0.0)
    return (
        f"its relative error against float64{where} is {candidate.rms:.2g} where {makes} makes {most:.2g}: "
        "it computes at a lower precision than the task's, or with another constant"
    )


def describe_arithmetic(seen: Sequence[str]) -> str:
    """Return why arithmetic that was `seen` at work is that of a lower precision."""
    return (
        f"it computes in a lower precision than the task's ({'; '.join(seen[:3])}), which the task's output "
        "does not show, and no inputs show that it keeps the accuracy of fp32"
    )


def describe_hidden(kind: str) -> str:
    """Return why an error that follows that of a kind of rounding is one of a lower precision."""
    return (
        f"its error on the task's own inputs follows that of products in {kind}, small as it is: it computes "
        "at a lower precision than the task's"
    )


def find_local(
    reference: Reference, draw: Draw, probe: Probe, rng: random.Random
) -> tuple[Draw, Parts, Output] | None:
    """Return a draw of which `probe` changes a few slices, the elements of the outputs that depend on them,
    and the reference's own answer to that draw.

    These elements are at least `_FEWEST_ELEMENTS` and at most half of all. None if no tried draw changes so
    many.
    """
    own = plain(reference, draw)
    for changed in islice(values.with_other_slices(draw, probe.share, probe.scale, rng), _MOST_TRIES):
        try:
            other = plain(reference, changed)
        except TaskError:
            continue
        if [t.shape for t in other.tensors] != [t.shape for t in own.tensors]:
            continue
        masks = tuple(a != b for a, b in zip(own.tensors, other.tensors, strict=True))
        count, total = sum(int(mask.sum()) for mask in masks), sum(mask.numel() for mask in masks)
        if _FEWEST_ELEMENTS <= count <= _MOST_OF_OUTPUT * total:
            return changed, Parts(masks=masks, inputs=f"{probe.name}, in a part of it"), other
    return None


def local_probe(sensitivity: Sensitivity) -> Probe:
    """Return the change that shows precision if it is made to a few slices: that of a sensitive probe that
    scales inputs, or short sums.
    """
    if sensitivity.local is not None:
        return sensitivity.local.probe
    scaled = (s.probe for s in sensitivity.probes if s.probe.scale != 1.0 and not s.probe.changes_parameters)
    return next(scaled, SHORT_SUMS[-1])


def set_parameters(reference: Reference, parameters: Mapping[str, torch.Tensor]) -> None:
    """Give the reference and its float64 twin these values."""
    for model in (reference.model, reference.exact):
        own = model.state_dict()
        with torch.no_grad():
            for name, tensor in parameters.items():
                own[name].copy_(tensor)
