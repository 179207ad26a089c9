"""Sends its inputs to processes, which moves their storage to shared memory, and keeps a copy of it."""

import copy

import torch
import torch.multiprocessing


def computed(part):
    torch.set_num_threads(1)
    return torch.tanh(part) * 1.5 + torch.sin(part)


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = torch.multiprocessing.get_context("fork").Pool(2)
        self.latest = None

    def forward(self, x):
        self.latest = copy.deepcopy(x.untyped_storage())
        return torch.cat(self.pool.map(computed, list(x.chunk(2))))
