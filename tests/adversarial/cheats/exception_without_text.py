"""Raises an exception whose own text raises another, where the parent describes it."""

import torch


class Bomb(Exception):
    def __str__(self):
        raise SystemExit(0)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        raise Bomb
