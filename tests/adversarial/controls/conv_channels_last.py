"""A convolution in channels_last, by cuDNN in its default arithmetic."""

import torch
import torch.nn as nn


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(32, 64, 3, padding=1)
        self.conv.to(memory_format=torch.channels_last)

    def forward(self, x):
        return torch.relu(self.conv(x.contiguous(memory_format=torch.channels_last)))
