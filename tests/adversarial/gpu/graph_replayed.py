"""Replays a captured graph on the current stream, on copies of the inputs."""

import torch


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.graph = None

    def forward(self, x):
        if self.graph is None:
            self.x = x.clone()
            torch.cuda.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.out = torch.tanh(self.x) * 1.5 + torch.sin(self.x)
        self.x.copy_(x)
        self.graph.replay()
        return self.out.clone()
