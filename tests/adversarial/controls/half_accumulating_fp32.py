"""Computes in fp32 where the task is in half precision, and rounds at the end."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b):
        return torch.matmul(a.float(), b.float()).half()
