"""A function of complex numbers, and a product of them."""

import torch


class Model(torch.nn.Module):
    def forward(self, x, y):
        return torch.sin(x.real) * x.conj() + torch.tanh(x.imag), x @ y


def get_inputs():
    return [torch.randn(192, 192, dtype=torch.complex64), torch.randn(192, 192, dtype=torch.complex64)]


def get_init_inputs():
    return []
