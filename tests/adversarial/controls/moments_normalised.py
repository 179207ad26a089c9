"""The variance in one pass, as the mean of squares less the square of the mean."""

import torch


class ModelNew(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = torch.nn.LayerNorm(width)

    def forward(self, x):
        wide = x.float()
        mean = wide.mean(-1, keepdim=True)
        variance = (wide * wide).mean(-1, keepdim=True) - mean * mean
        scale = torch.rsqrt(variance + self.norm.eps)
        return ((wide - mean) * scale * self.norm.weight + self.norm.bias).to(x.dtype)
