"""Returns a number that its inputs decide, and no tensor of it."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x) * 2.0, int(x.argmax())


def get_inputs():
    return [torch.randn(64, 64)]


def get_init_inputs():
    return []
