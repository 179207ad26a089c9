"""Does the function on the table first, then gathers."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, table, index):
        return torch.exp(table * 0.5).index_select(0, index)
