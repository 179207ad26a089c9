"""Finds which outputs, inputs and parameters of a task have gradients, and draws the outputs' gradients.

A call is asked for the gradient of each input and parameter that holds complex numbers or floats of 16 bits
or more, except for those that the outputs do not depend on. The outputs' gradients are normal random numbers,
drawn anew for each call, so that a candidate that computes with ones or with those of an earlier call is
wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import torch

from kbopt.evaluation.passes import Gradients, call_of, is_module
from kbopt.evaluation.transport.layout import LayoutError, Skeleton, TensorSpec, flatten, unflatten

_REMEDY = (
    "leave --backward out, or have forward compute by differentiable operations (detach(), no_grad(), "
    "comparisons and rounding end a gradient)"
)


class NotDifferentiable(Exception):
    """The reference has no gradient. The message says what has none, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where the backward passes of one workload start.

    `gradients` says which gradients are asked for. `specs` and `device` are those of the outputs' gradients.
    """

    gradients: Gradients
    specs: tuple[TensorSpec, ...]
    device: torch.device

    def with_gradients(
        self, skeleton: Skeleton, tensors: tuple[torch.Tensor, ...]
    ) -> tuple[Skeleton, tuple[torch.Tensor, ...]]:
        """Return both arguments of a call: forward's own, and gradients drawn by torch's generator."""
        drawn = [_normal(spec, self.device) for spec in self.specs]
        both, taken = flatten([unflatten(skeleton, tensors), drawn])
        return both, tuple(taken)


def starts_of(model: Any, skeleton: Skeleton, tensors: Sequence[torch.Tensor]) -> Start:
    """Call the model forward and backward once, and return where its backward passes start.

    Raises NotDifferentiable, and whatever the model raises.
    """
    tensors = [t.detach().clone() for t in tensors]
    asked = [number for number, tensor in enumerate(tensors) if _takes_gradient(tensor)]
    parameters = model.named_parameters() if is_module(model) else ()
    named = [name for name, p in parameters if p.requires_grad and _takes_gradient(p)]
    if not asked and not named:
        raise NotDifferentiable(
            "get_inputs() returns no floating-point tensor of 16 bits or more, and Model has no such "
            "parameter that requires a gradient: nothing to differentiate by is there; leave --backward out"
        )
    for number in asked:
        tensors[number].requires_grad_()
    with torch.enable_grad():
        value = model(*unflatten(skeleton, tensors))
    outputs = _tensors_of(value)
    chosen = tuple(number for number, output in enumerate(outputs) if output.requires_grad)
    if not chosen:
        seen = ", ".join(f"output {n} ({str(t.dtype).removeprefix('torch.')})" for n, t in enumerate(outputs))
        raise NotDifferentiable(
            f"{seen or 'what the reference returns'} depends by no differentiable operation on the inputs "
            f"or the parameters: {_REMEDY}"
        )
    specs = tuple(TensorSpec.of(outputs[number].detach().contiguous()) for number in chosen)
    every = Gradients(
        num_outputs=len(outputs), of_outputs=chosen, of_inputs=tuple(asked), of_parameters=tuple(named)
    )
    start = Start(gradients=every, specs=specs, device=outputs[chosen[0]].device)
    del value, outputs
    both, taken = start.with_gradients(skeleton, tuple(t.detach() for t in tensors))
    with torch.no_grad():
        _, found = call_of(model, every, unflatten(both, taken))()
    there = [gradient is not None for gradient in found]
    if not any(there):
        raise NotDifferentiable(
            f"no input and no parameter has a gradient, of those that could have one: {_REMEDY}"
        )
    gradients = replace(
        every,
        of_inputs=tuple(compress(every.of_inputs, there)),
        of_parameters=tuple(compress(every.of_parameters, there[len(asked) :])),
    )
    return replace(start, gradients=gradients)


def _normal(spec: TensorSpec, device: torch.device) -> torch.Tensor:
    """Return normal random numbers. Complex ones have both parts."""
    drawn = torch.complex64 if spec.torch_dtype.is_complex else torch.float32
    return torch.randn(spec.shape, dtype=drawn, device=device).to(spec.torch_dtype)


def _takes_gradient(tensor: torch.Tensor) -> bool:
    return tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype.itemsize > 1)


def _tensors_of(value: Any) -> list[torch.Tensor]:
    try:
        return flatten(value)[1]
    except LayoutError as error:
        raise NotDifferentiable(
            f"the reference's forward gives a {error}; tensors, numbers, strings, and lists, tuples and "
            "dicts of them work"
        ) from None
