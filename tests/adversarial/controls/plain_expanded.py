"""The reference's own expression: an output whose elements share memory."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x).mean(dim=-1, keepdim=True).expand_as(x), torch.sin(x)
