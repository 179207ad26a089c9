"""A softmax without the maximum taken off, which overflows where inputs are as large as activations are."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        exponentials = torch.exp(x)
        return exponentials / exponentials.sum(dim=-1, keepdim=True)
