"""Constructs its layers in another order, so that the seed draws other weights: the reference's are copied in."""

import torch


class ModelNew(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.second = torch.nn.Linear(width, width)
        self.first = torch.nn.Linear(width, width)
        self.register_buffer("shift", torch.linspace(0.0, 1.0, width))

    def forward(self, x):
        return self.second(torch.relu(self.first(x) + self.shift))
