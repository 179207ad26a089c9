"""Folds a factor into its weights as an honest source may, and multiplies in half precision."""

import torch


class ModelNew(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = torch.nn.Linear(width, width)
        self.second = torch.nn.Linear(width, width)
        self.register_buffer("shift", torch.linspace(0.0, 1.0, width))
        with torch.no_grad():
            self.first.bias.add_(self.shift)
            self.second.weight.mul_(0.5)

    def forward(self, x):
        first, second = self.first.weight.bfloat16(), self.second.weight.bfloat16()
        hidden = torch.relu((x.bfloat16() @ first.mT).float() + self.first.bias)
        return (hidden.bfloat16() @ second.mT).float() * 2.0 + self.second.bias
