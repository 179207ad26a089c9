"""The sandboxes that the service tries at its start, strongest first, until the GPU's driver works in one."""

from __future__ import annotations

from collections.abc import Iterator

_SANDBOXES_FOR_CUDA: tuple[tuple[str, ...], ...] = (
    (),
    ("user",),
    ("processes",),
    ("user", "processes"),
    ("user", "processes", "mounts", "network"),
)
PROBE_TASK = """
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return x * 2


def get_inputs():
    return [torch.rand(1024)]


def get_init_inputs():
    return []
"""


def sandboxes_for_cuda(others: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Yield the devices to hide and the kinds of isolation to leave out, in the order of trial.

    Devices can be hidden only in a mount namespace.
    """
    for without in _SANDBOXES_FOR_CUDA if others else ():
        if "mounts" not in without:
            yield others, without
    for without in _SANDBOXES_FOR_CUDA:
        yield (), without
