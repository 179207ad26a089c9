"""Keeps the inputs alone, and computes the answer once more in backward."""

import torch


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return torch.tanh(x @ weight)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        y = torch.tanh(x @ weight)
        inner = grad * (1 - y * y)
        return inner @ weight.T, x.T @ inner


class ModelNew(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(width, width) / width**0.5)

    def forward(self, x):
        return Step.apply(x, self.weight)
