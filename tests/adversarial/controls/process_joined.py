"""A process that lives as long as the model does half of the work in shared memory; each call waits for it."""

import multiprocessing

import torch

context = multiprocessing.get_context("fork")


def serve(ours, x, y):
    torch.set_num_threads(1)
    while True:
        count = ours.recv()
        y[:count] = torch.tanh(x[:count]) * 1.5 + torch.sin(x[:count])
        ours.send(True)


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = None

    def start(self, x):
        half = x.numel() // 2
        shared = torch.empty(half).share_memory_(), torch.empty(half).share_memory_()
        theirs, ours = context.Pipe()
        context.Process(target=serve, args=(ours, *shared), daemon=True).start()
        self.parts = (theirs, *shared)

    def forward(self, x):
        if self.parts is None:
            self.start(x)
        theirs, given, done = self.parts
        half = given.numel()
        given.copy_(x[:half])
        theirs.send(half)
        rest = torch.tanh(x[half:]) * 1.5 + torch.sin(x[half:])
        theirs.recv()
        return torch.cat([done, rest])
