"""Returns a list where the reference returns a tuple."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return [torch.exp(x).sum(dim=-1), torch.argmax(x, dim=-1)]
