"""One percent too small everywhere, as by a constant that was guessed."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1) * 0.99
