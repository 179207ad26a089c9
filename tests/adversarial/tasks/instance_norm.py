"""A normalisation over thousands of elements."""

import torch
import torch.nn as nn


class Model(nn.Module):
    def forward(self, x):
        return torch.nn.functional.instance_norm(x)


def get_inputs():
    return [torch.randn(2, 4, 256, 256)]


def get_init_inputs():
    return []
