"""Hard swish made of a hard tanh, operation by operation, as in MobileNetV3."""
# family: elementwise/hard_swish

import torch
import torch.nn as nn
import torch.nn.functional as F


class Model(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * F.hardtanh(x + 3.0, 0.0, 6.0) / 6.0


CHANNELS = 64
SIDE = 112


def get_inputs():
    return [torch.randn(1, CHANNELS, SIDE, SIDE)]


def get_init_inputs():
    return []
