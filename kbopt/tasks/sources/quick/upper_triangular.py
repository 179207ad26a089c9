"""Upper triangular times upper triangular matrix."""
# family: triangular/upper

import torch
import torch.nn as nn


class Model(nn.Module):
    def forward(self, A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
        return torch.triu(torch.matmul(A, B))


SIDE = 512


def get_inputs():
    return [torch.triu(torch.rand(SIDE, SIDE)), torch.triu(torch.rand(SIDE, SIDE))]


def get_init_inputs():
    return []
