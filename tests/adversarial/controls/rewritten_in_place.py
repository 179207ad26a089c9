"""Works in place, in buffers of its own."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = torch.tanh(x)
        out.mul_(1.5)
        out.add_(torch.sin(x))
        return out
