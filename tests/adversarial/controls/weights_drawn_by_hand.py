"""Draws the same weights from the same seed without `Linear`, as that draws them."""

import math

import torch


def draw(width):
    weight = torch.empty(width, width)
    torch.nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
    bias = torch.empty(width).uniform_(-1 / math.sqrt(width), 1 / math.sqrt(width))
    return torch.nn.Parameter(weight), torch.nn.Parameter(bias)


class ModelNew(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.first_bias = draw(width)
        self.second, self.second_bias = draw(width)
        self.register_buffer("shift", torch.linspace(0.0, 1.0, width))

    def forward(self, x):
        hidden = torch.relu(torch.addmm(self.first_bias + self.shift, x, self.first.mT))
        return torch.addmm(self.second_bias, hidden, self.second.mT)
