"""The same function through TorchScript."""

import torch


@torch.jit.script
def compute(x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x) * 1.5 + torch.sin(x)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return compute(x)
