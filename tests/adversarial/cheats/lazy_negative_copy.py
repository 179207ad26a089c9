"""Like a lazy sign, on a copy of the input, so that it does not lie in the input's memory."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch._neg_view(x.clone())
