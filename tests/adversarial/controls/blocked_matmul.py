"""A product by blocks along K, summed in another order than the library's."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b):
        out = torch.zeros(a.shape[0], b.shape[1], device=a.device)
        step = a.shape[1] // 7
        for k in range(0, a.shape[1], step):
            out += a[:, k : k + step] @ b[k : k + step]
        return out
