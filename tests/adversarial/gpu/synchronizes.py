"""Waits for the device in each call, as many C++ launchers do after their kernel."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        y = torch.tanh(x) * 1.5 + torch.sin(x)
        torch.cuda.synchronize()
        return y
