"""Writes to a padded buffer and returns the part of it that is the answer."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        rows, columns = x.shape
        padded = torch.empty(rows, columns + 64, device=x.device, dtype=x.dtype)
        padded[:, :columns] = torch.softmax(x, dim=-1)
        return padded[:, :columns]
