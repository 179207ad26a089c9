"""A softmax over rows: its outputs are small, so that zeros lie within an absolute tolerance of 1e-4."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1)


def get_inputs():
    return [torch.randn(2**14 if torch.cuda.is_available() else 256, 4096)]


def get_init_inputs():
    return []
