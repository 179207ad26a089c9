"""A product beside an additive parameter a thousand times as large."""

import torch
import torch.nn as nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(256, 192) / 16)
        self.offset = nn.Parameter(1000.0 + torch.rand(192))

    def forward(self, x):
        return x @ self.weight + self.offset


def get_inputs():
    return [torch.randn(512, 256)]


def get_init_inputs():
    return []
