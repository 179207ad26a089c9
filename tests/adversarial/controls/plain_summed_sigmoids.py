"""The task's own steps, with the sum as a product."""

import torch
import torch.nn as nn


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1024, 1024)
        self.register_buffer("ones", torch.ones(1024, 1), persistent=False)

    def forward(self, x):
        return torch.sigmoid(self.linear(x)) @ self.ones + 40.0 * 1024
