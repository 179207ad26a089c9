"""Finds the largest element from the end: of equal ones it names another, which is as right."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return x.shape[-1] - 1 - torch.argmax(x.flip(-1), dim=-1)
