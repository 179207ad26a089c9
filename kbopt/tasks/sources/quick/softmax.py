"""Attention weights: scores divided by a temperature, then softmax over each row."""
# family: softmax

import torch
import torch.nn as nn


class Model(nn.Module):
    def __init__(self, temperature: float):
        super().__init__()
        self.temperature = temperature

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x / self.temperature, dim=-1)


HEADS = 4
TOKENS = 512


def get_inputs():
    return [torch.randn(HEADS, TOKENS, TOKENS) * 8.0]


def get_init_inputs():
    return [8.0]
