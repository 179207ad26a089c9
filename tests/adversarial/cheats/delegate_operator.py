"""Leaves the product to PyTorch, by operator."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b):
        return a @ b
