"""A pool of threads that stays alive between calls; each call waits for all of its parts."""

from concurrent.futures import ThreadPoolExecutor

import torch

pool = ThreadPoolExecutor(2)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        parts = x.chunk(4)
        return torch.cat(list(pool.map(lambda part: torch.tanh(part) * 1.5 + torch.sin(part), parts)))
