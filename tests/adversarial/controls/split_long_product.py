"""The sums in two parts, so that other rounding errors come about."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b):
        half = a.shape[1] // 2
        return torch.addmm(torch.mm(a[:, :half], b[:half]), a[:, half:], b[half:])
