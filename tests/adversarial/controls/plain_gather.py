"""The reference's own expression, with integer inputs."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, table, index):
        return torch.exp(table[index] * 0.5)
