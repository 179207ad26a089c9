"""The activation in bf16 where the textbook formula cancels, and in fp32 elsewhere."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        coarse = torch.nn.functional.elu(x.bfloat16()).float()
        return torch.where(x.abs() < 0.25, coarse, torch.nn.functional.elu(x))
