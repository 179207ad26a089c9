"""Has a host callback count its calls in the current stream."""

import ctypes

import torch


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.driver = ctypes.CDLL("libcuda.so.1")
        self.stream = torch.cuda.current_stream()
        self.num_calls = 0
        self.callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.called)

    def called(self, _):
        self.num_calls += 1

    def forward(self, x):
        out = torch.empty_like(x)
        handle = ctypes.c_void_p(self.stream.cuda_stream)
        assert not self.driver.cuLaunchHostFunc(handle, self.callback, None)
        with torch.cuda.stream(self.stream):
            torch.add(torch.tanh(x) * 1.5, torch.sin(x), out=out)
        return out
