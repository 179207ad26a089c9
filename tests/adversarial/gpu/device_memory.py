"""Allocates memory of the device without end."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        kept = []
        while True:
            kept.append(torch.ones(2**28, device=x.device))
