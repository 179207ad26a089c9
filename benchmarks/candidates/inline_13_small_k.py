import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

source = r"""
#include <torch/extension.h>

template <typename scalar_t>
__global__ void small_k_kernel(
    const torch::PackedTensorAccessor32<scalar_t, 2, torch::RestrictPtrTraits> A,
    const torch::PackedTensorAccessor32<scalar_t, 2, torch::RestrictPtrTraits> B,
    torch::PackedTensorAccessor32<scalar_t, 2, torch::RestrictPtrTraits> C) {
    const int row = blockIdx.y * blockDim.y + threadIdx.y;
    const int col = blockIdx.x * blockDim.x + threadIdx.x;
    if (row < C.size(0) && col < C.size(1)) {
        scalar_t acc = 0;
        for (int k = 0; k < A.size(1); ++k) acc += A[row][k] * B[k][col];
        C[row][col] = acc;
    }
}

torch::Tensor small_k_matmul(torch::Tensor A, torch::Tensor B) {
    auto C = torch::empty({A.size(0), B.size(1)}, A.options());
    const dim3 block(32, 8);
    const dim3 grid((B.size(1) + 31) / 32, (A.size(0) + 7) / 8);
    AT_DISPATCH_FLOATING_TYPES(A.scalar_type(), "small_k_matmul", ([&] {
        small_k_kernel<scalar_t><<<grid, block>>>(
            A.packed_accessor32<scalar_t, 2, torch::RestrictPtrTraits>(),
            B.packed_accessor32<scalar_t, 2, torch::RestrictPtrTraits>(),
            C.packed_accessor32<scalar_t, 2, torch::RestrictPtrTraits>());
    }));
    return C;
}
"""

ext = load_inline(
    name="small_k_accessors",
    cpp_sources="torch::Tensor small_k_matmul(torch::Tensor A, torch::Tensor B);",
    cuda_sources=source,
    functions=["small_k_matmul"],
)


class ModelNew(nn.Module):
    def forward(self, A, B):
        return ext.small_k_matmul(A, B)
