"""A transform of real numbers times complex weights: gradients are complex, or come through such."""

import torch


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(257, dtype=torch.complex64))

    def forward(self, x):
        return torch.fft.rfft(x) * self.weight


def get_inputs():
    return [torch.randn(256, 512)]


def get_init_inputs():
    return []
