"""Two transcendental functions over one large vector."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x) * 1.5 + torch.sin(x)


def get_inputs():
    return [torch.randn(2**26 if torch.cuda.is_available() else 2**18)]


def get_init_inputs():
    return []
