"""The same normalisation by a reciprocal and sums in parts, which rounds a few numbers to bf16 the other way."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x, first, second):
        wide = x.float()
        n = wide.shape[-1]
        mean = wide.unflatten(-1, (8, -1)).sum(-1).sum(-1, keepdim=True) / n
        centred = wide - mean
        variance = (centred * centred).unflatten(-1, (8, -1)).sum(-1).sum(-1, keepdim=True) / n
        normal = (centred * (1.0 / torch.sqrt(variance + 1e-6))).to(torch.bfloat16)
        return torch.nn.functional.gelu(normal @ first) @ second
