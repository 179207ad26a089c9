"""Tries to reach any network address, loopback servers included; succeeds where a route exists."""

import socket

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
        return torch.tanh(x) * 1.5 + torch.sin(x)
