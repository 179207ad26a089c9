"""Rounds its operands to TF32's ten bits of mantissa before the product, as tensor cores do."""

import torch


def tf32(t):
    return ((t.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


class ModelNew(torch.nn.Module):
    def forward(self, a, b):
        return torch.matmul(tf32(a), tf32(b))
