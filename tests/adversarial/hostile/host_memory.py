"""Allocates and touches memory without end."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        kept = []
        while True:
            kept.append(torch.ones(2**26, dtype=torch.uint8))
