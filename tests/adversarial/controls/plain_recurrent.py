"""The recurrent layer as PyTorch runs it."""

import torch
import torch.nn as nn


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(32, 64, batch_first=True)

    def forward(self, x):
        state = torch.zeros(1, x.shape[0], 64, dtype=torch.float32, device=x.device)
        return self.lstm(x, (state, state))[0]
