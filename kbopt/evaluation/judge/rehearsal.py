"""Admits a small task once before a judge on a GPU has its own, so that libraries are loaded by then."""

from __future__ import annotations

from contextlib import suppress

import torch

from kbopt.core.protocol import EvalProtocol
from kbopt.evaluation.judge.admission import admit
from kbopt.evaluation.judge.reference import Reference
from kbopt.evaluation.judge.task_code import TaskError

_SOURCE = """
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.gelu(x @ x)


def get_inputs():
    return [torch.rand(16, 16)]


def get_init_inputs():
    return []
"""


def rehearse(protocol: EvalProtocol, device: torch.device) -> None:
    """Have the device's libraries load what they load at their first use."""
    with suppress(TaskError, RuntimeError):  # The device may be full at the moment.
        admit(Reference(_SOURCE, protocol, device, 0))
        torch.cuda.synchronize(device)
