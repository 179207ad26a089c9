"""A softmax from its parts, in another order of summation."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return (lambda e: e / e.sum(dim=-1, keepdim=True))(torch.exp(x - x.amax(dim=-1, keepdim=True)))
