"""How probes change the inputs and parameters of a task, so that the precision of its products shows.

`precision` finds those that show it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from kbopt.evaluation.judge import errors, values
from kbopt.evaluation.judge.reference import Draw, Reference

SHARES = (0.25, 0.004)
"""Shares of the elements that sparse probes keep."""
_SCALES = (2.0**-6, 2.0**-12, 2.0**6, 2.0**14)
"""Factors of scaled probes: a saturated activation needs smaller inputs, a large offset larger ones
(decision 38)."""
_COHERENT = 1.0 + 2.0**-8 + 2.0**-12 + 2.0**-19
"""The value of coherent probes. TF32 and bf16 round it the same way everywhere, so that no mean averages the
errors out."""


_HEAVIEST = 64.0
"""The largest factor of a heavy-tailed element, as in `kinds`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A way to change a draw and the parameters.

    `share` of the inputs' elements are kept and multiplied by `scale`; the others are zero. If `coherent`,
    all elements have one value instead. If `zero_additive`, parameters that no product takes are zero, except
    weights of norms. Parameters that products take are multiplied by `weight_scale`. `heavy` says whose
    elements are each multiplied by a factor of its own: those of the inputs, or of these parameters.
    """

    name: str
    share: float = 1.0
    scale: float = 1.0
    coherent: bool = False
    zero_additive: bool = False
    weight_scale: float = 1.0
    heavy: Literal["", "inputs", "weights"] = ""

    @property
    def changes_parameters(self) -> bool:
        return self.zero_additive or self.weight_scale != 1.0 or self.heavy == "weights"

    def inputs(self, draw: Draw) -> Draw:
        if self.share == 1.0 and self.scale == 1.0 and not self.coherent and self.heavy != "inputs":
            return draw
        return replace(draw, tensors=tuple(self._changed(t) for t in draw.tensors))

    def parameters(self, reference: Reference, operands: frozenset[str]) -> dict[str, torch.Tensor]:
        """Return the reference's parameters as the probe changes them, by name.

        `operands` has the names of those that products take.
        """
        return {
            name: self._parameter(name, t, name in operands) for name, t in reference.parameters().items()
        }

    def _parameter(self, name: str, tensor: torch.Tensor, is_operand: bool) -> torch.Tensor:
        if not tensor.is_floating_point() or _is_statistic(name):
            return tensor
        if is_operand:
            return _heavy(tensor) if self.heavy else tensor * self.weight_scale
        # The weight of a norm is a factor, and zero would leave nothing to see.
        return torch.zeros_like(tensor) if self.zero_additive and not name.endswith("weight") else tensor

    def _changed(self, tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point() or tensor.dtype.itemsize == 1 or tensor.numel() <= 1:
            return tensor
        if self.heavy:
            return _heavy(tensor) if values.is_free(tensor) else tensor
        if self.coherent:
            return torch.where(tensor == 0, tensor, torch.full_like(tensor, _COHERENT))
        if self.share < 1.0 and tensor.numel() > 64:
            tensor = errors.sparse_probe(tensor, self.share)
        return tensor * self.scale


DENSE = Probe(name="its own inputs")
SHORT_SUMS = tuple(Probe(name="inputs of which a few sums have few terms", share=share) for share in SHARES)
ON_INPUTS = (
    DENSE,
    *(Probe(name=f"inputs of which {share:.1%} are not zero", share=share) for share in SHARES),
    Probe(name="inputs of one value", coherent=True),
    *(Probe(name=f"inputs times {scale:g}", scale=scale) for scale in _SCALES),
)
ON_PARAMETERS = (
    Probe(name="additive parameters of zero", zero_additive=True),
    *(
        Probe(name=f"additive parameters of zero, inputs times {scale:g}", zero_additive=True, scale=scale)
        for scale in _SCALES
    ),
    Probe(name="additive parameters of zero, inputs of one value", zero_additive=True, coherent=True),
    Probe(name="weights times 64", weight_scale=64.0),
    Probe(name="weights divided by 64", weight_scale=1 / 64),
    Probe(name="additive parameters of zero, weights times 64", zero_additive=True, weight_scale=64.0),
)


ON_HALF = (
    Probe(name="inputs of which a few are far larger than the rest", heavy="inputs"),
    Probe(name="weights of which a few are far larger than the rest", heavy="weights"),
)
"""Probes of tasks in fp16 and bf16. Integers of 8 bits with a scale, which errs by five times bf16's rounding
on normal numbers, err by thirty times there."""


def _heavy(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype.itemsize == 1:
        return tensor
    return errors.heavy_tailed(tensor.float(), _HEAVIEST).to(tensor.dtype)


def _is_statistic(name: str) -> bool:
    """Return whether the name is a statistic of a norm: a running variance of zero would divide by zero."""
    return name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")
