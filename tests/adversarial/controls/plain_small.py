"""The reference's own expression, on a small input."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x) * 1.5 + torch.sin(x)
