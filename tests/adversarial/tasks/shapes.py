"""A softmax over rows of several shapes: two are shown, one is hidden."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1)


def get_inputs(rows, columns):
    return [torch.randn(rows * (16 if torch.cuda.is_available() else 1), columns)]


def get_init_inputs():
    return []


def get_workloads():
    return [
        {"name": "square", "args": {"rows": 256, "columns": 2048}},
        {"name": "wide", "args": {"rows": 64, "columns": 8192}},
        {"name": "ragged", "args": {"rows": 301, "columns": 1003}, "role": "hidden"},
    ]
