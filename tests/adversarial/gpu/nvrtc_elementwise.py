"""One fused kernel, compiled by NVRTC."""

import torch

SOURCE = r"""
extern "C" __global__ void kernel(const float *x, float *y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = tanhf(x[i]) * 1.5f + sinf(x[i]);
}
"""


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = torch.cuda._compile_kernel(SOURCE, "kernel")

    def forward(self, x):
        out = torch.empty_like(x)
        n = x.numel()
        self.kernel(grid=(-(-n // 256), 1, 1), block=(256, 1, 1), args=[x, out, n])
        return out
