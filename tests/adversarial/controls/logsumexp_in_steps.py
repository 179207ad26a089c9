"""The rows in eight steps, with a running maximum and a running sum, as a kernel of one pass has them."""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        largest = torch.full(x.shape[:1], -torch.inf, device=x.device)
        total = torch.zeros_like(largest)
        for part in x.float().chunk(8, 1):
            now = torch.maximum(largest, part.amax(1))
            total = total * torch.exp(largest - now) + torch.exp(part - now[:, None]).sum(1)
            largest = now
        return (largest + total.log()).to(x.dtype)
