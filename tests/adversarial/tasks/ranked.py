"""The place of each row's largest element: with equal ones, any of them would do."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.argmax(x, dim=-1)


def get_inputs():
    return [torch.randn(2**14 if torch.cuda.is_available() else 512, 1000)]


def get_init_inputs():
    return []
