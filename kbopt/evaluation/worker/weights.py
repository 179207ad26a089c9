"""The reference's weights in a candidate: by name and shape where those agree, else as the seed decides."""

from __future__ import annotations

from collections.abc import Mapping

import torch

_MAX_NAMES = 5
"""Names of each kind in a message."""


def take_over(model: torch.nn.Module, parameters: Mapping[str, torch.Tensor]) -> tuple[bool, str]:
    """Copy `parameters` into `model` if its state dict has the same names and shapes. Whether it has.

    With it comes what keeps them from fitting where only some of them do, else "": a model with parameters of
    its own is filled by the seed alone, as KernelBench has it. Values that are equal already are left as they
    are, so that what the constructor made of them stays valid.
    """
    own = model.state_dict()
    missing = [name for name in parameters if name not in own]
    unexpected = [name for name in own if name not in parameters]
    reshaped = [
        f"{name} is {list(own[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in parameters.items()
        if name in own and own[name].shape != tensor.shape
    ]
    if missing or unexpected or reshaped:
        fits_in_part = len(missing) + len(reshaped) < len(parameters)
        return False, _sentence(missing, unexpected, reshaped) if fits_in_part else ""
    with torch.no_grad():
        for name, tensor in parameters.items():
            if not torch.equal(own[name], tensor.to(own[name].dtype)):
                own[name].copy_(tensor)
    return True, ""


def _sentence(missing: list[str], unexpected: list[str], reshaped: list[str]) -> str:
    parts = [
        f"{what} {', '.join(names[:_MAX_NAMES])}{' and others' if len(names) > _MAX_NAMES else ''}"
        for what, names in (("missing:", missing), ("not in the reference:", unexpected), ("", reshaped))
        if names
    ]
    return "; ".join(part.strip() for part in parts)
