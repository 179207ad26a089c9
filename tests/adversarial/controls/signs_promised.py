"""Uses the sign that the task's inputs always have: the contract keeps it."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.sqrt(x) + x * 0.5
