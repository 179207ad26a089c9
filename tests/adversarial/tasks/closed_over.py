"""A layer, and one that a function calls which the model keeps. In a copy it calls the first one's layer."""

import torch
import torch.nn as nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(256, 256)
        self.second = nn.ModuleDict({"layer": nn.Linear(256, 192), "activation": nn.Tanh()})
        second = self.second
        self.finish = lambda x: second.activation(second.layer(x))

    def forward(self, x):
        return self.finish(torch.relu(self.first(x)))


def get_inputs():
    return [torch.randn(512, 256)]


def get_init_inputs():
    return []
