"""Computes in a second context of the process, on copies, and waits for it."""

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
        torch.empty(1, device="cuda")
        context, stream, previous = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        assert not self.driver.cuCtxCreate_v2(ctypes.byref(context), 0, 0)  # It is current from here.
        assert not self.driver.cuStreamCreate(ctypes.byref(stream), 1)
        self.kernel = torch.cuda._compile_kernel(SOURCE, "kernel")
        assert not self.driver.cuCtxPopCurrent_v2(ctypes.byref(previous))
        self.context, self.stream, self.memory = context, stream, None

    def copy(self, to, source, size):
        addresses = ctypes.c_void_p(to), ctypes.c_void_p(source)
        assert not self.driver.cuMemcpyAsync(*addresses, ctypes.c_size_t(size), self.stream)

    def forward(self, x):
        out = torch.empty_like(x)
        n = x.numel()
        previous = ctypes.c_void_p()
        torch.cuda.current_stream().synchronize()
        assert not self.driver.cuCtxPushCurrent_v2(self.context)
        if self.memory is None:
            memory = ctypes.c_void_p()
            assert not self.driver.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(8 * n))
            self.memory = memory.value
        self.copy(self.memory, x.data_ptr(), 4 * n)
        numbers = ctypes.c_void_p(self.memory), ctypes.c_void_p(self.memory + 4 * n), ctypes.c_int(n)
        pointers = (ctypes.c_void_p * 3)(*(ctypes.addressof(number) for number in numbers))
        function = self.kernel.func
        grid = -(-n // 256)
        assert not self.driver.cuLaunchKernel(function, grid, 1, 1, 256, 1, 1, 0, self.stream, pointers, None)
        self.copy(out.data_ptr(), self.memory + 4 * n, 4 * n)
        assert not self.driver.cuStreamSynchronize(self.stream)
        assert not self.driver.cuCtxPopCurrent_v2(ctypes.byref(previous))
        return out
