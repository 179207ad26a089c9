"""The same transform, conjugated and negated in memory."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        y = torch.fft.fft(x)
        return torch.complex(y.real, -y.imag).mT.contiguous(), torch.neg(y.imag)
