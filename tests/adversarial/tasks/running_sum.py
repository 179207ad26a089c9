"""Running sums of rows, of which the later ones hardly differ from what the earlier ones lead to expect."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.cumsum(x, 1)


def get_inputs():
    return [torch.rand(256, 4096)]


def get_init_inputs():
    return []
