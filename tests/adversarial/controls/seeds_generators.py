"""Seeds every generator at import and draws from them in each call, without effect on the answer."""

import random

import numpy
import torch

torch.manual_seed(0)
random.seed(0)
numpy.random.seed(0)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        torch.rand(4)
        random.random()
        return torch.tanh(x) * 1.5 + torch.sin(x)
