"""The low bits of its floats as numbers: it refuses float64, and jumps where its inputs move at all."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return (x.view(torch.int32) & 3).float() - 1.5


def get_inputs():
    return [torch.randn(512, 512)]


def get_init_inputs():
    return []
