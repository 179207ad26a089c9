"""The same, so that autograd gives an expanded gradient and hands on the output's own."""

import torch


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.randn(512))

    def forward(self, x):
        return x.sum(dim=-1) * (1.0 / x.shape[-1]), x + self.shift
