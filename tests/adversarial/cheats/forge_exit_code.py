"""Leaves with success in the middle of a call, after announcing success."""

import os

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        os.write(1, b'{"outcome": "measured", "speedup": 100.0}\n')
        os._exit(0)
