"""A two-dimensional function whose honest kernels may well leave their output transposed in memory."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x.mT).contiguous()


def get_inputs():
    return [torch.randn(8192 if torch.cuda.is_available() else 512, 1024)]


def get_init_inputs():
    return []
