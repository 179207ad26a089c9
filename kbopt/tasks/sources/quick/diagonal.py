"""Diagonal matrix, given by its diagonal, times matrix."""
# family: diagonal

import torch
import torch.nn as nn


class Model(nn.Module):
    def forward(self, A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
        return torch.diag(A) @ B


ROWS = 512
COLUMNS = 768


def get_inputs():
    return [torch.rand(ROWS), torch.rand(ROWS, COLUMNS)]


def get_init_inputs():
    return []
