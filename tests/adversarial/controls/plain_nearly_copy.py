"""The reference's own expression."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return x + 5e-5 * torch.sin(40 * x) * (1 + x.abs())
