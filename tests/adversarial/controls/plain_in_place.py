"""The reference's own expression: it writes to the input that the reference writes to."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, cache, x):
        cache[:, 64:] = torch.tanh(cache[:, 64:] + x)
        return cache.sum(dim=-1) + x[:, 0]
