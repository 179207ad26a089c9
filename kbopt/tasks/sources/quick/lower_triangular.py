"""Lower triangular times lower triangular matrix."""
# family: triangular/lower

import torch
import torch.nn as nn


class Model(nn.Module):
    def forward(self, A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
        return torch.tril(torch.matmul(A, B))


SIDE = 512


def get_inputs():
    return [torch.tril(torch.rand(SIDE, SIDE)), torch.tril(torch.rand(SIDE, SIDE))]


def get_init_inputs():
    return []
