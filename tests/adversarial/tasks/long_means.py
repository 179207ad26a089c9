"""The means of long rows of positive numbers, which a part of each row tells nearly."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return x.mean(1)


def get_inputs():
    return [torch.rand(2048 if torch.cuda.is_available() else 16, 2**16)]


def get_init_inputs():
    return []
