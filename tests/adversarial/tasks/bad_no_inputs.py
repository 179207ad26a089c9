"""It has no inputs, so that one answer serves for ever."""

import torch


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(64, 64))

    def forward(self):
        return self.weight @ self.weight


def get_inputs():
    return []


def get_init_inputs():
    return []
