"""Keeps scratch memory between calls, works there, and returns a fresh copy."""

import torch


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scratch = None

    def forward(self, x):
        if self.scratch is None or self.scratch.shape != x.shape:
            self.scratch = torch.empty_like(x)
        torch.tanh(x, out=self.scratch)
        return torch.add(torch.sin(x), self.scratch, alpha=1.5)
