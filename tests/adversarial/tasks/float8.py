"""A product of matrices in floats of 8 bits, with a scale, as an fp8 layer has it."""

import torch


class Model(torch.nn.Module):
    def forward(self, x, weight, scale):
        return (x.float() @ weight.float()) * scale


def get_inputs():
    return [
        torch.randn(256, 256).to(torch.float8_e4m3fn),
        torch.randn(256, 256).to(torch.float8_e5m2),
        torch.rand(256) + 0.5,
    ]


def get_init_inputs():
    return []
