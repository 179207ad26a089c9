"""The hyperbolic tangent by the textbook formula, which cancels near zero. It is in fp32 and honest."""

import torch
import torch.nn as nn


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(256, 192))

    def forward(self, x):
        y = 4.0 * (x @ self.weight)
        return 1.0 - 2.0 / (torch.exp(2.0 * y) + 1.0)
