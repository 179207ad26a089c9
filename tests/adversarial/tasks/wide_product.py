"""A product of positive numbers with so many rows and columns that sums of these cost little beside it."""

import torch


class Model(torch.nn.Module):
    def forward(self, a, b):
        return torch.matmul(a, b)


def get_inputs():
    rows, terms = (4096, 4096) if torch.cuda.is_available() else (256, 2048)
    return [torch.rand(rows, terms), torch.rand(terms, rows)]


def get_init_inputs():
    return []
