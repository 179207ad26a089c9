"""Its reference fails."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        raise ValueError("no such layer")


def get_inputs():
    return [torch.randn(64, 64)]


def get_init_inputs():
    return []
