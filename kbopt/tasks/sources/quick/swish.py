"""Swish, x times its sigmoid."""
# family: elementwise/swish

import torch
import torch.nn as nn


class Model(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)


TOKENS = 256
FEATURES = 4096


def get_inputs():
    return [torch.randn(TOKENS, FEATURES)]


def get_init_inputs():
    return []
