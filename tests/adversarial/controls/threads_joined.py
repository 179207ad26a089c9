"""Halves the work between two Python threads, and joins them."""

import threading

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = torch.empty_like(x)
        half = x.numel() // 2

        def work(part):
            out[part] = torch.tanh(x[part]) * 1.5 + torch.sin(x[part])

        threads = [threading.Thread(target=work, args=(slice(k * half, (k + 1) * half),)) for k in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return out
