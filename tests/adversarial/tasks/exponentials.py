"""Outputs over fourteen orders of magnitude, of which the largest round by far more than most others are."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.exp(4.0 * x)


def get_inputs():
    return [torch.randn(512, 512)]


def get_init_inputs():
    return []
