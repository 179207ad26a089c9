"""Remembers its latest outputs without ever using them again."""

from collections import deque

import torch


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.history = deque(maxlen=4)

    def forward(self, x):
        out = torch.tanh(x) * 1.5 + torch.sin(x)
        self.history.append(out)
        return out
