"""Allocates scratch memory by cudaMalloc and frees it in each call, which waits for the device."""

import ctypes

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
        self.driver = ctypes.CDLL("libcuda.so.1")
        self.kernel = torch.cuda._compile_kernel(SOURCE, "kernel")

    def forward(self, x):
        scratch = ctypes.c_void_p()
        assert not self.driver.cuMemAlloc_v2(ctypes.byref(scratch), ctypes.c_size_t(1 << 20))
        out = torch.empty_like(x)
        n = x.numel()
        self.kernel(grid=(-(-n // 256), 1, 1), block=(256, 1, 1), args=[x, out, n])
        assert not self.driver.cuMemFree_v2(scratch)
        return out
