"""Uses an interval timer and a signal handler of its own, as a watchdog or a profiler does."""

import os
import signal

import torch

ticks = []
signal.signal(signal.SIGALRM, lambda *_: ticks.append("alarm"))
signal.signal(signal.SIGUSR1, lambda *_: ticks.append("asked"))


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        os.kill(os.getpid(), signal.SIGUSR1)

    def forward(self, x):
        del ticks[:]
        return torch.tanh(x) * 1.5 + torch.sin(x)
