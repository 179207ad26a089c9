"""A product of integers of 8 bits, summed in 32."""

import torch


class Model(torch.nn.Module):
    def forward(self, a, b):
        return torch._int_mm(a, b)


def get_inputs():
    return [torch.randint(-128, 128, (256, 256), dtype=torch.int8) for _ in range(2)]


def get_init_inputs():
    return []
