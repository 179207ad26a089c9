"""The mean of sixteen means, each of which is rounded."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return x.view(x.shape[0], 16, -1).mean(2).mean(1)
