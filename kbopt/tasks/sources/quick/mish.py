"""Mish, operation by operation: x times tanh of softplus of x."""
# family: elementwise/mish

import torch
import torch.nn as nn
import torch.nn.functional as F


class Model(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.tanh(F.softplus(x))


CHANNELS = 64
SIDE = 112


def get_inputs():
    return [torch.randn(1, CHANNELS, SIDE, SIDE)]


def get_init_inputs():
    return []
