import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

diag_source = """
#include <torch/extension.h>
#include <ATen/cuda/CUDAContext.h>

__global__ void diag_scale_kernel(const float* __restrict__ a, const float4* __restrict__ b,
                                  float4* __restrict__ c, int64_t rows, int64_t vec_cols) {
    int64_t idx = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    const int64_t total = rows * vec_cols;
    for (; idx < total; idx += (int64_t)gridDim.x * blockDim.x) {
        const float s = a[idx / vec_cols];
        float4 v = b[idx];
        v.x *= s; v.y *= s; v.z *= s; v.w *= s;
        c[idx] = v;
    }
}

torch::Tensor diag_matmul(torch::Tensor A, torch::Tensor B) {
    const auto N = B.size(0);
    const auto M = B.size(1);
    TORCH_CHECK(M % 4 == 0, "M must be a multiple of 4, got ", M);
    auto C = torch::empty_like(B);
    const int threads = 256;
    const int blocks = std::min<int64_t>((N * M / 4 + threads - 1) / threads, 65535);
    auto stream = at::cuda::getCurrentCUDAStream();
    diag_scale_kernel<<<blocks, threads, 0, stream>>>(
        A.data_ptr<float>(),
        reinterpret_cast<const float4*>(B.data_ptr<float>()),
        reinterpret_cast<float4*>(C.data_ptr<float>()), N, M / 4);
    return C;
}
"""

diag = load_inline(
    name="diag_matmul_ext",
    cpp_sources="torch::Tensor diag_matmul(torch::Tensor A, torch::Tensor B);",
    cuda_sources=diag_source,
    functions=["diag_matmul"],
)


class ModelNew(nn.Module):
    def forward(self, A, B):
        return diag.diag_matmul(A, B)
