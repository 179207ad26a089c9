"""By powers of two, whose exponents round once more."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.exp2(x * 5.770780163555854)
