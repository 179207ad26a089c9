"""A conjugated transform and the negated half of it, which PyTorch leaves undone until they are read."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.fft.fft(x).mH, torch.fft.fft(x).conj().imag


def get_inputs():
    return [torch.randn(512, 512)]


def get_init_inputs():
    return []
