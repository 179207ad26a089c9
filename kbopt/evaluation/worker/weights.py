"""Copies the reference's weights into a candidate whose state dict has the same names and shapes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn.parameter import is_lazy

from kbopt.evaluation.worker_messages import Instantiated

_MAX_NAMES = 5
"""Names of each kind in a message at most."""


def take_over(model: torch.nn.Module, parameters: Mapping[str, torch.Tensor]) -> Instantiated:
    """Copy `parameters` into `model` if its state dict has the same names and shapes.

    A model with other parameters keeps the values that its constructor drew under the seed, as in
    KernelBench. Equal values are not copied, so that data that the constructor derived from them stay valid.
    A parameter that the first call would give its shape gets that of the reference.
    """
    own = model.state_dict()
    missing = [name for name in parameters if name not in own]
    unexpected = [name for name in own if name not in parameters]
    reshaped = [
        f"{name} is {list(own[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in parameters.items()
        if name in own and not is_lazy(own[name]) and own[name].shape != tensor.shape
    ]
    if missing or unexpected or reshaped:
        fits_in_part = len(missing) + len(reshaped) < len(parameters)
        misfits = _sentence(missing, unexpected, reshaped) if fits_in_part else ""
        return Instantiated(takes_weights=False, overwrites=False, misfits=misfits)
    overwrites = False
    with torch.no_grad():
        for name, tensor in parameters.items():
            if is_lazy(own[name]):
                own[name].materialize(tensor.shape)
                own[name].copy_(tensor)
            elif not torch.equal(own[name], tensor.to(own[name].dtype)):
                own[name].copy_(tensor)
                overwrites = True
    return Instantiated(takes_weights=True, overwrites=overwrites, misfits="")


def _sentence(missing: list[str], unexpected: list[str], reshaped: list[str]) -> str:
    parts = [
        f"{what} {', '.join(names[:_MAX_NAMES])}{' and others' if len(names) > _MAX_NAMES else ''}"
        for what, names in (("missing:", missing), ("not in the reference:", unexpected), ("", reshaped))
        if names
    ]
    return "; ".join(part.strip() for part in parts)
