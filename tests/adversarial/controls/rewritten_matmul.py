"""The same product through the transposed one."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b):
        return torch.matmul(b.mT, a.mT).mT.contiguous()
