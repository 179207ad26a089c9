"""One fused kernel through `load_inline`, as language models write them."""

import torch
from torch.utils.cpp_extension import load_inline

CUDA = r"""
#include <torch/extension.h>
__global__ void kernel(const float* x, float* y, int64_t n) {
  int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
  if (i < n) y[i] = tanhf(x[i]) * 1.5f + sinf(x[i]);
}
torch::Tensor fused(torch::Tensor x) {
  auto y = torch::empty_like(x);
  int64_t n = x.numel();
  kernel<<<(n + 255) / 256, 256>>>(x.data_ptr<float>(), y.data_ptr<float>(), n);
  return y;
}
"""
module = load_inline(
    name="fused", cpp_sources="torch::Tensor fused(torch::Tensor x);", cuda_sources=CUDA, functions=["fused"]
)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return module.fused(x)
