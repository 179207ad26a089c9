"""Outputs far below any usual absolute tolerance."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x) * 1e-6


def get_inputs():
    return [torch.randn(2**26 if torch.cuda.is_available() else 2**18)]


def get_init_inputs():
    return []
