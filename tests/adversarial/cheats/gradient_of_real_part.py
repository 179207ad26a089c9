"""A backward that takes the gradient of a complex output for a real one."""

import torch


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, transform, weight):
        ctx.save_for_backward(transform, weight)
        return transform * weight

    @staticmethod
    def backward(ctx, grad):
        transform, weight = ctx.saved_tensors
        grad = torch.complex(grad.real, torch.zeros_like(grad.real))
        return grad * weight.conj(), (grad * transform.conj()).sum(0)


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(257, dtype=torch.complex64))

    def forward(self, x):
        return Product.apply(torch.fft.rfft(x), self.weight)
