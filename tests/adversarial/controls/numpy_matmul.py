"""NumPy's product, written into memory that PyTorch allocated."""

import numpy
import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b):
        out = torch.empty(a.shape[0], b.shape[1])
        numpy.matmul(a.numpy(), b.numpy(), out=out.numpy())
        return out
