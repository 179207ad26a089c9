"""Launches one cooperative kernel that waits for its whole grid."""

import torch
from torch.utils.cpp_extension import load_inline

CUDA = r"""
#include <torch/extension.h>
#include <ATen/cuda/CUDAContext.h>
#include <cooperative_groups.h>

__global__ void kernel(const float* x, float* y, int64_t n) {
  int64_t begin = blockIdx.x * (int64_t)blockDim.x + threadIdx.x, step = gridDim.x * (int64_t)blockDim.x;
  for (int64_t i = begin; i < n; i += step) y[i] = tanhf(x[i]) * 1.5f;
  cooperative_groups::this_grid().sync();
  for (int64_t i = begin; i < n; i += step) y[i] += sinf(x[i]);
}
torch::Tensor run(torch::Tensor x) {
  auto y = torch::empty_like(x);
  int64_t n = x.numel();
  cudaStream_t stream = at::cuda::getCurrentCUDAStream();
  const float* from = x.data_ptr<float>();
  float* to = y.data_ptr<float>();
  void* arguments[] = {&from, &to, &n};
  auto code = cudaLaunchCooperativeKernel((const void*)kernel, dim3(264), dim3(256), arguments, 0, stream);
  TORCH_CHECK(code == cudaSuccess);
  return y;
}
"""
module = load_inline(
    name="cooperative_launch",
    cpp_sources="torch::Tensor run(torch::Tensor x);",
    cuda_sources=CUDA,
    functions=["run"],
    extra_cuda_cflags=["-gencode=arch=compute_90,code=sm_90"],
)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return module.run(x)
