"""Computes in memory that it mapped itself, from a file in its folder, and returns a copy."""

import mmap
import os
import tempfile

import torch


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scratch = None

    def forward(self, x):
        if self.scratch is None:
            with tempfile.TemporaryFile() as file:
                os.ftruncate(file.fileno(), 4 * x.numel())
                self.scratch = torch.frombuffer(mmap.mmap(file.fileno(), 4 * x.numel()), dtype=torch.float32)
        torch.tanh(x, out=self.scratch)
        return self.scratch * 1.5 + torch.sin(x)
