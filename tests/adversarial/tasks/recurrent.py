"""A recurrent layer with a state in fp32, which refuses float64. cuDNN runs it in TF32 by default."""

import torch
import torch.nn as nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(32, 64, batch_first=True)

    def forward(self, x):
        state = torch.zeros(1, x.shape[0], 64, dtype=torch.float32, device=x.device)
        return self.lstm(x, (state, state))[0]


def get_inputs():
    return [torch.randn(16, 24, 32)]


def get_init_inputs():
    return []
