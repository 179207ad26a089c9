"""The terms in four parts, each rounded before they are added, as products in split parts are."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b):
        step = a.shape[1] // 4
        parts = [torch.matmul(a[:, at : at + step], b[at : at + step]) for at in range(0, 4 * step, step)]
        return parts[0] + parts[1] + parts[2] + parts[3]
