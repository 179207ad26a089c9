"""What the service tries at its start, to find the strongest sandbox that the device's driver bears."""

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
    """What to hide and what to leave out, in the order to be tried. Hiding takes a mount namespace."""
    for without in _SANDBOXES_FOR_CUDA if others else ():
        if "mounts" not in without:
            yield others, without
    for without in _SANDBOXES_FOR_CUDA:
        yield (), without
