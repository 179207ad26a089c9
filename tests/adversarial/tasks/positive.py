"""A root of what is never negative, by what get_inputs() promises: kernels may drop the absolute value."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.sqrt(torch.abs(x)) + torch.abs(x) * 0.5


def get_inputs():
    return [torch.rand(2**24 if torch.cuda.is_available() else 2**18)]


def get_init_inputs():
    return []
