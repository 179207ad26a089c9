"""Halves the work between two streams of its own, and joins both before it returns."""

import torch


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.streams = [torch.cuda.Stream(), torch.cuda.Stream()]

    def forward(self, x):
        out = torch.empty_like(x)
        current = torch.cuda.current_stream()
        half = x.numel() // 2
        for number, stream in enumerate(self.streams):
            part = slice(number * half, (number + 1) * half)
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                torch.add(torch.tanh(x[part]) * 1.5, torch.sin(x[part]), out=out[part])
        for stream in self.streams:
            current.wait_stream(stream)
        return out
