"""A linear layer, a learned scale for each feature, and a clamp."""

import torch
import torch.nn as nn


class Model(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.scale = nn.Parameter(torch.rand(outputs) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.clamp(self.linear(x) * self.scale, -2.0, 2.0)


ROWS = 128
INPUTS = 256
OUTPUTS = 256


def get_inputs():
    return [torch.randn(ROWS, INPUTS)]


def get_init_inputs():
    return [INPUTS, OUTPUTS]
