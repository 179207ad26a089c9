"""Zeros are its answer: whatever the inputs, ReLU leaves nothing."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.relu(x - 100.0)


def get_inputs():
    return [torch.randn(64, 64)]


def get_init_inputs():
    return []
