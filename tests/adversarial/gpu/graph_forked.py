"""Replays a graph of two parallel branches in the current stream, on a copy of the input."""

import torch


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.graph = None
        self.side = torch.cuda.Stream()

    def forward(self, x):
        if self.graph is None:
            self.x = x.clone()
            torch.cuda.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                current = torch.cuda.current_stream()
                self.side.wait_stream(current)
                with torch.cuda.stream(self.side):
                    sine = torch.sin(self.x)
                scaled = torch.tanh(self.x) * 1.5
                current.wait_stream(self.side)
                self.out = scaled + sine
        self.x.copy_(x)
        self.graph.replay()
        return self.out.clone()
