"""Sums up the parameter's gradient over blocks of rows, in memory that each call clears."""

import torch


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        y = torch.tanh(x @ weight)
        ctx.save_for_backward(x, weight, y)
        return y

    @staticmethod
    def backward(ctx, grad):
        x, weight, y = ctx.saved_tensors
        inner = grad * (1 - y * y)
        total = torch.zeros_like(weight)
        for rows, parts in zip(x.split(64), inner.split(64), strict=True):
            total.addmm_(rows.T, parts)
        return inner @ weight.T, total


class ModelNew(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(width, width) / width**0.5)

    def forward(self, x):
        return Step.apply(x, self.weight)
