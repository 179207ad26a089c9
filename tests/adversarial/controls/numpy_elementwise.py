"""NumPy on the tensor's own memory."""

import numpy
import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        values = x.numpy()
        return torch.from_numpy(numpy.tanh(values) * numpy.float32(1.5) + numpy.sin(values))
