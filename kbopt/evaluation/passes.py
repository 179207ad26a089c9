"""A model's call, the same in every process that makes one: forward alone, or forward and backward together.

A call of both passes takes two arguments: the list of forward's own arguments, and a list with the gradients
of the outputs that have one. It returns what forward returned, and the list of the gradients that were asked
for. A gradient that autograd does not find is None.

What a call returns is in memory as it is read. PyTorch conjugates and negates complex tensors lazily, and
autograd hands on an expanded gradient, or that of the output itself. A call writes these out, as whoever
reads or accumulates them would, for the reference and for a candidate alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from kbopt.evaluation.transport.layout import LayoutError, flatten, is_separate, unflatten

NameOf = Callable[[int], str]
"""Returns the name in messages of the tensor of that number among all that a call returns."""

_grad = torch.autograd.grad


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradients:
    """The tensors that a backward pass starts from, and those whose gradients are asked for.

    `of_outputs` are numbers of tensors among the `num_outputs` that forward returns. The backward pass starts
    from these. `of_inputs` are numbers of tensors among forward's arguments, and `of_parameters` are names.
    """

    num_outputs: int
    of_outputs: tuple[int, ...]
    of_inputs: tuple[int, ...]
    of_parameters: tuple[str, ...]

    def name_of(self, number: int) -> str:
        """Return the name in messages of the tensor of that number among all that a call returns."""
        if number < self.num_outputs:
            return output_name(number)
        number -= self.num_outputs
        if number < len(self.of_inputs):
            return f"gradient of input {self.of_inputs[number]}"
        return f"gradient of parameter {self.of_parameters[number - len(self.of_inputs)]}"


def output_name(number: int) -> str:
    """Return the name in messages of the tensor of that number if calls are forward alone."""
    return f"output {number}"


def call_of(model: Any, gradients: Gradients | None, arguments: Sequence[Any]) -> Callable[[], Any]:
    """Return a call that is ready to be timed. It is forward alone if no `gradients` are asked for."""
    if gradients is None:
        return partial(_forward, model, arguments)
    skeleton, tensors = flatten(list(arguments))
    for number in gradients.of_inputs:
        tensors[number] = tensors[number].detach().requires_grad_()
    inputs, given = unflatten(skeleton, tensors)
    parameters = dict(model.named_parameters(remove_duplicate=False)) if is_module(model) else {}
    leaves = [tensors[number] for number in gradients.of_inputs]
    leaves += [parameters.get(name) for name in gradients.of_parameters]
    return partial(_both_passes, model, inputs, given, leaves, gradients.of_outputs)


def _forward(model: Any, arguments: Sequence[Any]) -> Any:
    return _written(model(*arguments))


def _written(value: Any) -> Any:
    """Return the value with its lazily conjugated or negated tensors written out."""
    if type(value) is torch.Tensor:
        return value.resolve_conj().resolve_neg() if value.is_conj() or value.is_neg() else value
    try:
        skeleton, tensors = flatten(value)
    except LayoutError:  # The judge says what is wrong with the form.
        return value
    if not any(tensor.is_conj() or tensor.is_neg() for tensor in tensors):
        return value
    return unflatten(skeleton, [tensor.resolve_conj().resolve_neg() for tensor in tensors])


def is_module(model: Any) -> bool:
    """Return whether the model may have parameters. Other callables count as models too."""
    return isinstance(model, torch.nn.Module)


def _both_passes(
    model: Any,
    inputs: Sequence[Any],
    given: Sequence[torch.Tensor],
    leaves: Sequence[torch.Tensor | None],
    of_outputs: Sequence[int],
) -> tuple[Any, list[torch.Tensor | None]]:
    with torch.enable_grad():
        value = _forward(model, inputs)
    known = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
    outputs = _outputs(value, given, of_outputs)
    if not known or not outputs:
        return value, [None] * len(leaves)
    found = _grad([output for output, _ in outputs], known, [grad for _, grad in outputs], allow_unused=True)
    lent = {tensor.untyped_storage().data_ptr() for tensor in (*given, *known)}
    own = iter([grad if grad is None else _of_its_own(grad, lent) for grad in found])
    return value, [next(own) if leaf is not None and leaf.requires_grad else None for leaf in leaves]


def _of_its_own(gradient: torch.Tensor, lent: Set[int]) -> torch.Tensor:
    """Return the gradient, or a copy if elements share memory or it lies in one of the storages `lent`."""
    if gradient.layout is not torch.strided:
        return gradient
    if not is_separate(gradient.shape, gradient.stride()):
        return gradient.contiguous()
    return gradient.clone() if gradient.untyped_storage().data_ptr() in lent else _written(gradient)


def _outputs(
    value: Any, given: Sequence[torch.Tensor], of_outputs: Sequence[int]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the outputs that require a gradient, each with its gradient.

    Return none if a gradient does not fit its output. The judge says what is wrong with the output's form.
    """
    try:
        _, tensors = flatten(value)
    except LayoutError:
        return []
    if of_outputs and of_outputs[-1] >= len(tensors):
        return []
    pairs = [(tensors[number], grad) for number, grad in zip(of_outputs, given, strict=True)]
    if any((one.shape, one.dtype, one.device) != (two.shape, two.dtype, two.device) for one, two in pairs):
        return []
    return [(output, grad) for output, grad in pairs if output.requires_grad]
