"""Its answer is not a number anywhere, so that nothing can be wrong."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.sqrt(-1.0 - x * x)


def get_inputs():
    return [torch.randn(64, 64)]


def get_init_inputs():
    return []
