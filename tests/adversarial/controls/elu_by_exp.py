"""The textbook formula, which cancels near zero where PyTorch takes expm1. It is in fp32 and honest."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.where(x > 0, x, torch.exp(x) - 1.0)
