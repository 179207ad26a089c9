"""4D tensor times matrix, as an einsum."""
# family: matmul/nn

import torch
import torch.nn as nn


class Model(nn.Module):
    def forward(self, A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bijl,lk->bijk", A, B)


BATCH = 8
ROWS = 256
COLUMNS = 512
L = 256
K = 768


def get_inputs():
    return [torch.rand(BATCH, ROWS, COLUMNS, L), torch.rand(L, K)]


def get_init_inputs():
    return []
