import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

cpp_source = """
#include <torch/extension.h>

void launch_lower(const float* a, const float* b, float* c, int n);

torch::Tensor lower_matmul(const torch::Tensor& a, const torch::Tensor& b) {
    TORCH_CHECK(a.sizes() == b.sizes(), "shapes differ: ", a.sizes(), " and ", b.sizes());
    auto c = torch::empty({a.size(0), a.size(1)}, torch::TensorOptions().dtype(a.dtype()).device(a.device()));
    launch_lower(a.data_ptr<float>(), b.data_ptr<float>(), c.data_ptr<float>(), static_cast<int>(a.size(0)));
    return c;
}
"""

cuda_source = """
#include <cuda_runtime.h>

namespace {
constexpr int kTile = 32;

__global__ void lower_kernel(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int n) {
    __shared__ float sa[kTile][kTile + 1];
    __shared__ float sb[kTile][kTile + 1];
    const int row = blockIdx.y * kTile + threadIdx.y;
    const int col = blockIdx.x * kTile + threadIdx.x;
    float acc = 0.f;
    if (blockIdx.y >= blockIdx.x) {
        for (int t = blockIdx.x; t <= blockIdx.y; ++t) {
            const int ka = t * kTile + threadIdx.x, kb = t * kTile + threadIdx.y;
            sa[threadIdx.y][threadIdx.x] = (row < n && ka < n && ka <= row) ? a[row * n + ka] : 0.f;
            sb[threadIdx.y][threadIdx.x] = (kb < n && col < n && col <= kb) ? b[kb * n + col] : 0.f;
            __syncthreads();
#pragma unroll
            for (int k = 0; k < kTile; ++k) acc = fmaf(sa[threadIdx.y][k], sb[k][threadIdx.x], acc);
            __syncthreads();
        }
    }
    if (row < n && col < n) c[row * n + col] = acc;
}
}  // namespace

void launch_lower(const float* a, const float* b, float* c, int n) {
    const int tiles = (n + kTile - 1) / kTile;
    lower_kernel<<<dim3(tiles, tiles), dim3(kTile, kTile)>>>(a, b, c, n);
}
"""

lower = load_inline(
    name="lower_triangular",
    cpp_sources=[cpp_source],
    cuda_sources=[cuda_source],
    functions=["lower_matmul"],
    with_cuda=True,
)


class ModelNew(nn.Module):
    def forward(self, A, B):
        return lower.lower_matmul(A, B)
