"""A list in place of a tuple, as a function in C++ that returns several tensors gives it."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return [torch.exp(x).sum(dim=-1), torch.argmax(x, dim=-1)]
