"""Adds the parameter's gradient to that of the calls before, which nobody cleared."""

import torch


class Step(torch.autograd.Function):
    total = None

    @staticmethod
    def forward(ctx, x, weight):
        y = torch.tanh(x @ weight)
        ctx.save_for_backward(x, weight, y)
        return y

    @staticmethod
    def backward(ctx, grad):
        x, weight, y = ctx.saved_tensors
        inner = grad * (1 - y * y)
        Step.total = torch.zeros_like(weight) if Step.total is None else Step.total
        Step.total += x.T @ inner
        return inner @ weight.T, Step.total.clone()


class ModelNew(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(width, width) / width**0.5)

    def forward(self, x):
        return Step.apply(x, self.weight)
