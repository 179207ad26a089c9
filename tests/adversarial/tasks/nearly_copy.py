"""A residual connection that adds little: the input itself is within KernelBench's tolerance."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return x + 5e-5 * torch.sin(40 * x) * (1 + x.abs())


def get_inputs():
    return [torch.randn(2**26 if torch.cuda.is_available() else 2**18)]


def get_init_inputs():
    return []
