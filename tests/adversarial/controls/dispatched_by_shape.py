"""Chooses among three ways by documented bounds of the shape, each of which is right wherever it is taken."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        if x.shape[-1] >= 4096:
            shifted = x - x.amax(dim=-1, keepdim=True)
            exponentials = torch.exp(shifted)
            return exponentials / exponentials.sum(dim=-1, keepdim=True)
        if x.shape[-1] % 4 == 0:
            return torch.softmax(x, dim=-1)
        return torch.exp(torch.log_softmax(x, dim=-1))
