"""The reference's own expression: a lazy conjugate and a lazy sign."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.fft.fft(x).mH, torch.fft.fft(x).conj().imag
