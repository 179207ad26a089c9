"""Rounds a weight to 8 bits with a scale for each column, in a bf16 task whose model refuses float64."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x, first, second):
        wide = x.float()
        mean = wide.mean(-1, keepdim=True)
        variance = wide.var(-1, keepdim=True, unbiased=False)
        normal = ((wide - mean) / torch.sqrt(variance + 1e-6)).to(torch.bfloat16)
        scale = second.abs().amax(0, keepdim=True) / 127
        packed = (second / scale).round() * scale
        return torch.nn.functional.gelu(normal @ first) @ packed
