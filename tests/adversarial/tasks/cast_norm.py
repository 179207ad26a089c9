"""A normalisation that rounds to bf16 itself, so that the model refuses float64, before two products."""

import torch


class Model(torch.nn.Module):
    def forward(self, x, first, second):
        wide = x.float()
        mean = wide.mean(-1, keepdim=True)
        variance = wide.var(-1, keepdim=True, unbiased=False)
        normal = ((wide - mean) / torch.sqrt(variance + 1e-6)).to(torch.bfloat16)
        return torch.nn.functional.gelu(normal @ first) @ second


def get_inputs():
    return [torch.randn(64, 512), torch.randn(512, 1024), torch.randn(1024, 512)]


def get_init_inputs():
    return []
