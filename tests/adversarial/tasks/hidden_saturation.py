"""A product whose activation is saturated nearly everywhere."""

import torch
import torch.nn as nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(256, 192))

    def forward(self, x):
        return torch.tanh(4.0 * (x @ self.weight))


def get_inputs():
    return [torch.randn(512, 256)]


def get_init_inputs():
    return []
