"""Works in place in its input to save memory traffic, then returns a copy."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        s = torch.sin(x)
        return x.tanh_().mul_(1.5).add(s)
