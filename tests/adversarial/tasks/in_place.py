"""Writes what it computes into a part of an input, as a cache of keys is filled, and returns a sum."""

import torch


class Model(torch.nn.Module):
    def forward(self, cache, x):
        cache[:, 64:] = torch.tanh(cache[:, 64:] + x)
        return cache.sum(dim=-1) + x[:, 0]


def get_inputs():
    return [torch.randn(256, 1024), torch.randn(256, 960)]


def get_init_inputs():
    return []
