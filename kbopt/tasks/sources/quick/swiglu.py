"""SwiGLU's gate: swish of one tensor times another, as in Llama's feed-forward layer."""
# family: elementwise/swiglu

import torch
import torch.nn as nn
import torch.nn.functional as F


class Model(nn.Module):
    def forward(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return F.silu(gate) * up


TOKENS = 256
FEATURES = 4096


def get_inputs():
    return [torch.randn(TOKENS, FEATURES), torch.randn(TOKENS, FEATURES)]


def get_init_inputs():
    return []
