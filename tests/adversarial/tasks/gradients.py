"""A product with a parameter and an activation, whose gradients are asked for, too."""

import torch


class Model(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(width, width) / width**0.5)

    def forward(self, x):
        return torch.tanh(x @ self.weight)


def get_inputs():
    return [torch.randn(16384 if torch.cuda.is_available() else 128, 512)]


def get_init_inputs():
    return [512]
