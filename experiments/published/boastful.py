"""Correct and faster, but by far not by as much as it claims."""

import torch
import torch.nn.functional as F


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return F.silu(x)
