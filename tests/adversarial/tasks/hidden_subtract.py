"""A transposed convolution and a softmax, from which something larger is taken."""

import torch
import torch.nn as nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.ConvTranspose2d(16, 32, 3, stride=2, padding=1)
        self.subtract = nn.Parameter(4.0 + torch.rand(32))

    def forward(self, x):
        x = torch.softmax(nn.functional.max_pool2d(self.conv(x), 2), dim=1)
        x = x - self.subtract.view(1, -1, 1, 1)
        return torch.amax(torch.sigmoid(x) * x, dim=1)


def get_inputs():
    return [torch.randn(8, 16, 24, 24)]


def get_init_inputs():
    return []
