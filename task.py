import torch


def get_inputs():
    return [(torch.rand(5, 4),), 2.0]


def get_init_inputs():
    return [4, 3]
