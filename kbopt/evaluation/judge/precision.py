"""Finds the inputs on which the precision of a task's products shows, and says how much of it may be lost.

A long sum, a normalisation, a saturated activation or a large additive term can hide the rounding of the
products before it. So the judge looks for *sensitive probes*: inputs, or other values of the parameters, on
which the reference errs visibly more once the operands of its products are rounded to a lower precision.
They are found once per task, and tried on every candidate.

The rule for fp32 tasks, which docs/evaluation.md states for users:

- On a sensitive probe the candidate's error against float64 must stay below the probe's limit. If the task is
  computed in fp32, the limit is that of `errors.is_downgrade`: 128 times the reference's own error. If it may
  use TF32, as PyTorch's convolutions on a GPU may by default, the limit is three times the error that
  rounding to TF32 makes. Truncation makes twice that error, and bf16 eight times.
- Half precision that is seen at work, and TF32 if the reference may not use it, are refused. A candidate
  passes all the same if a sensitive probe shows the accuracy of fp32, as for splits (3xTF32, bf16x9).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch

from kbopt.core.protocol import Precision
from kbopt.evaluation.judge import errors, textbook, tolerance, values
from kbopt.evaluation.judge.errors import Error
from kbopt.evaluation.judge.probes import (
    DENSE,
    ON_HALF,
    ON_INPUTS,
    ON_PARAMETERS,
    SHORT_SUMS,
    Probe,
)
from kbopt.evaluation.judge.products import Products, errors_in_tf32, plain, products_of, rounded
from kbopt.evaluation.judge.reference import Draw, Output, Reference
from kbopt.evaluation.judge.steps import picked
from kbopt.evaluation.judge.task_code import TaskError
from kbopt.evaluation.numerics import CONVOLUTIONS, DTYPES

_MARGIN = 1.5
"""A probe is sensitive if the error of the rounded reference exceeds this many times the probe's limit."""
_TF32_FACTOR = 3.0
"""A candidate's error may be this many times that of the reference in TF32, see above."""
_CUT_OFF = 2.5
"""Tensor cores that cut operands off err so many times as much as those that round them, where sums are near
zero. In sums of positive numbers it is a hundred times as much, and then this share of it is TF32's error."""
_NEARLY_RIGHT = 0.3
"""Relative error of the rounded reference. A probe on which rounding changes the answer by more tells nothing
about a candidate."""
NEARLY_RIGHT = 0.01
"""A relative error up to here may be that of a lower precision. Beyond it the answer is simply wrong."""
_HALF_FACTOR, _EIGHT_BITS = 8.0, 3.0
"""In fp16 and bf16 a candidate's error on a probe may be this many times the reference's, or so many times
the distance between one and the next number. A chain of operations that each round makes one such distance,
and integers of 8 bits with a scale for each row make four to six in bf16."""
_FP32_AGAIN = 0.125
"""A candidate is more precise than TF32 if its error is below this share of the reference's error in TF32."""
MAX_PROBES = 2
"""Sensitive probes that are kept for a task: each costs every candidate a call and a float64 answer."""
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
    yardstick then, because cuDNN chooses which convolutions it computes in TF32.
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
            least = _EIGHT_BITS * torch.finfo(DTYPES[self.precision]).eps
            return candidate.rms > max(_HALF_FACTOR * own.rms, least)
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


def find_sensitivity(reference: Reference, seed: int) -> Sensitivity:
    """Search for at most two sensitive probes.

    One that changes inputs alone comes first, because every candidate can take it.
    """
    draw = reference.draw(seed)
    products = products_of(reference, draw)
    return replace(_found(reference, draw, products, seed), dtypes=frozenset(products.dtypes))


def _found(reference: Reference, draw: Draw, products: Products, seed: int) -> Sensitivity:
    if reference.precision != "fp32":
        return (
            _of_half(reference.precision, products.operands_of(reference))
            if products.names
            else Sensitivity()
        )
    setting, convolves = reference.protocol.arithmetic, bool(products.names & CONVOLUTIONS)
    may_use_tf32 = reference.device.type == "cuda" and (
        setting == "tf32" or (setting == "default" and convolves)
    )
    if not reference.has_exact:  # Without float64 no probe shows an error.
        return Sensitivity(may_use_tf32=may_use_tf32)
    operands = products.operands_of(reference)
    tf32_errors: tuple[float, ...] = ()
    if may_use_tf32:
        tf32_errors = errors_in_tf32(reference, draw, reference.run_exact(draw))
    # Each probe takes four runs of the reference, two in float64. So the first that shows it is enough.
    on_inputs = (_tried(reference, probe, draw, may_use_tf32) for probe in ON_INPUTS)
    found = list(islice(filter(None, on_inputs), 1))
    if not found or found[0].probe != DENSE:
        found += _with_other_parameters(reference, draw, operands, may_use_tf32)[: MAX_PROBES - len(found)]
    return Sensitivity(
        probes=tuple(found),
        may_use_tf32=may_use_tf32,
        operands=operands,
        tf32_errors=tf32_errors,
        local=_find_sensitive_part(reference, draw, random.Random(seed)) if may_use_tf32 else None,
    )


def _of_half(name: Precision, operands: frozenset[str]) -> Sensitivity:
    found = (
        Sensitive(probe=probe, precision=name, nearly_right=_NEARLY_RIGHT)
        for probe in ON_HALF
        if operands or not probe.changes_parameters
    )
    return Sensitivity(probes=tuple(found), operands=operands)


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


def _find_sensitive_part(reference: Reference, draw: Draw, rng: random.Random) -> Sensitive | None:
    """Return a probe that shows half precision in a task that may use TF32, or None."""
    for probe in SHORT_SUMS:
        found = find_local(reference, draw, probe, rng)
        if found is None:
            return None
        changed, parts, plainly = found
        exact = parts.of(reference.run_exact(changed).tensors)
        own, tf32, cut, half = (
            errors.measure_error(parts.of(output.tensors), exact)
            for output in (
                plainly,
                rounded(reference, changed, "tf32"),
                rounded(reference, changed, "tf32 cut off"),
                rounded(reference, changed, "half"),
            )
        )
        local = Sensitive(probe=probe, tf32_rms=_tf32_rms(tf32, cut))
        if local.refuses(Error(rms=half.rms / _MARGIN, median=half.median), own) and half.rms < _NEARLY_RIGHT:
            return local
    return None


def _with_other_parameters(
    reference: Reference, draw: Draw, operands: frozenset[str], may_use_tf32: bool
) -> list[Sensitive]:
    """Return the first sensitive probe that changes parameters, or nothing. Afterwards they are as before."""
    kept = {name: tensor.clone() for name, tensor in reference.parameters().items()}
    if not kept:
        return []
    try:
        for probe in ON_PARAMETERS:
            set_parameters(reference, probe.parameters(reference, operands))
            sensitive = _tried(reference, probe, draw, may_use_tf32)
            set_parameters(reference, kept)
            if sensitive is not None:
                return [sensitive]
    finally:
        set_parameters(reference, kept)
    return []


def set_parameters(reference: Reference, parameters: Mapping[str, torch.Tensor]) -> None:
    """Give the reference and its float64 twin these values."""
    for model in (reference.model, reference.exact):
        own = model.state_dict()
        with torch.no_grad():
            for name, tensor in parameters.items():
                own[name].copy_(tensor)


def _tf32_rms(rounds: Error, cuts: Error) -> float:
    """Return TF32's error, from those of operands that are rounded to it and cut off."""
    return max(rounds.rms, cuts.rms / _CUT_OFF)


def _tried(reference: Reference, probe: Probe, draw: Draw, may_use_tf32: bool) -> Sensitive | None:
    changed = probe.inputs(draw)
    try:
        exact, own = reference.run_exact(changed), plain(reference, changed)
        if not all(map(tolerance.is_finite, own.tensors)):
            return None
        own_error = errors.measure_error(own.tensors, exact.tensors)
        del own
        tf32 = errors.measure_error(rounded(reference, changed, "tf32").tensors, exact.tensors)
        lower, tf32_rms = tf32, 0.0
        if may_use_tf32:
            lower = errors.measure_error(rounded(reference, changed, "half").tensors, exact.tensors)
            cut = errors.measure_error(rounded(reference, changed, "tf32 cut off").tensors, exact.tensors)
            tf32_rms = _tf32_rms(tf32, cut)
    except TaskError:
        return None  # The reference does not take values of this range.
    sensitive = Sensitive(probe=probe, tf32_rms=tf32_rms)
    shown = Error(rms=lower.rms / _MARGIN, median=lower.median / _MARGIN)
    if not sensitive.refuses(shown, own_error) or lower.rms >= _NEARLY_RIGHT:
        return None
    # It has to show beside what an ordinary formula errs on these inputs. Serial sums, which err less than
    # TF32, would take a second of each admission.
    shown = textbook.unexplained(shown, reference, changed, exact.tensors, serial=False)
    return sensitive if sensitive.refuses(shown, own_error) else None
