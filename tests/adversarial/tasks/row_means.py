"""Every element of a row of the output is the same, and each has memory of its own."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x).mean(dim=-1, keepdim=True).expand_as(x).contiguous()


def get_inputs():
    return [torch.randn(2**14 if torch.cuda.is_available() else 256, 2048)]


def get_init_inputs():
    return []
