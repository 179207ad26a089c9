"""Bound by memory: the answer is a sign away from the input."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return -x


def get_inputs():
    return [torch.randn(2**27 if torch.cuda.is_available() else 2**20)]


def get_init_inputs():
    return []
