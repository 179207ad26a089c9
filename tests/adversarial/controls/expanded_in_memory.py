"""Writes out each element that the reference only expands."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x).mean(dim=-1, keepdim=True).expand_as(x).contiguous(), torch.sin(x)
