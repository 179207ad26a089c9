"""Aborts, as a failed assertion in C does."""

import ctypes

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        ctypes.CDLL(None).abort()
