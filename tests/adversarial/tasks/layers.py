"""Two linear layers with a buffer between them: weights and buffers that a candidate has to share."""

import torch


class Model(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = torch.nn.Linear(width, width)
        self.second = torch.nn.Linear(width, width)
        self.register_buffer("shift", torch.linspace(0.0, 1.0, width))

    def forward(self, x):
        return self.second(torch.relu(self.first(x) + self.shift))


def get_inputs():
    return [torch.randn(16384 if torch.cuda.is_available() else 256, 512)]


def get_init_inputs():
    return [512]
