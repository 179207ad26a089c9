"""Hands out a parameter, a buffer and a constant of its own beside its answer."""

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.rand(1024) + 0.5)
        self.register_buffer("shift", torch.linspace(0.0, 1.0, 1024))
        self.table = torch.arange(1024.0, device=DEVICE)

    def forward(self, x):
        return torch.tanh(x) * self.scale + self.shift, self.scale, self.shift, self.table


def get_inputs():
    return [torch.randn(256, 1024)]


def get_init_inputs():
    return []
