"""Writes a gigabyte to stdout."""

import os

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        line = b"y" * 2**20
        for _ in range(1024):
            os.write(1, line)
        raise RuntimeError("all written")
