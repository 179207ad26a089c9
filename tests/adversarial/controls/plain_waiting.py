"""The reference's own code, which waits for the device in each call."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        factors = torch.tensor([1.5, 1.0], device=x.device)
        return torch.tanh(x) * factors[0] + torch.sin(x) * factors[1]
