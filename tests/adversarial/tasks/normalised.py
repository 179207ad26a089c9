"""A normalisation of long rows whose inputs are nearly normalised already."""

import torch


class Model(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = torch.nn.LayerNorm(width)

    def forward(self, x):
        return self.norm(x)


def get_inputs():
    return [torch.randn(4096 if torch.cuda.is_available() else 32, 2**14)]


def get_init_inputs():
    return [2**14]
