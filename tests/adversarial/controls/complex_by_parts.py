"""The product of complex numbers by four products of their parts."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x, y):
        real = x.real @ y.real - x.imag @ y.imag
        imag = x.real @ y.imag + x.imag @ y.real
        wave, shift = torch.sin(x.real), torch.tanh(x.imag)
        return torch.complex(wave * x.real + shift, -wave * x.imag), torch.complex(real, imag)
