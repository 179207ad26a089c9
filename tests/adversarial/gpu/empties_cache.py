"""Gives PyTorch's cached memory back before each call: outputs come to lie where others lay, in new allocations."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        torch.cuda.empty_cache()
        return torch.tanh(x) * 1.5 + torch.sin(x)
