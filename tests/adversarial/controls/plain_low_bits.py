"""The reference's own code, which takes the lower bits of its floats."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return (x.view(torch.int32) & 3).float() - 1.5
