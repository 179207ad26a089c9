"""Zeros for all elements that the rounding of the largest one exceeds, which is nearly half of them."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        y = torch.exp(4.0 * x)
        return torch.where(y < 2e-9 * y.max(), 0.0, y)
