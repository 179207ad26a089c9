"""A product of positive numbers with long sums, which hide the rounding of their terms."""

import torch


class Model(torch.nn.Module):
    def forward(self, a, b):
        return torch.matmul(a, b)


def get_inputs():
    rows, terms = (2048, 2**16) if torch.cuda.is_available() else (32, 2**14)
    return [torch.rand(rows, terms), torch.rand(terms, rows)]


def get_init_inputs():
    return []
