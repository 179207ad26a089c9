"""A causal mask: half of the answer is minus infinity."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        mask = torch.triu(torch.ones(x.shape[-1], x.shape[-1], dtype=torch.bool, device=x.device), 1)
        return x.masked_fill(mask, float("-inf"))


def get_inputs():
    return [torch.randn(16, 256, 256)]


def get_init_inputs():
    return []
