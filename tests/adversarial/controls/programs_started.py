"""Starts programs in every way that libraries do, before it is called."""

import getpass
import os
import subprocess

import torch

subprocess.run(["sh", "-c", "exit 0"], check=True)
assert os.system("exit 0") == 0
os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", "exit 0"], dict(os.environ)), 0)
assert os.popen("echo word").read() == "word\n"


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.user = getpass.getuser()

    def forward(self, x):
        return torch.tanh(x) * 1.5 + torch.sin(x)
