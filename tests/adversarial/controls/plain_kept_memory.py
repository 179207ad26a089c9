"""The reference's own expression: the same memory in each call, where the reference's is the same."""

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.rand(1024) + 0.5)
        self.register_buffer("shift", torch.linspace(0.0, 1.0, 1024))
        self.table = torch.arange(1024.0, device=DEVICE)

    def forward(self, x):
        return torch.tanh(x) * self.scale + self.shift, self.scale, self.shift, self.table
