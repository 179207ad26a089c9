import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

source = r"""
#include <torch/extension.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

template <typename scalar_t>
__global__ void symm_kernel(const scalar_t* __restrict__ A, const scalar_t* __restrict__ B,
                            scalar_t* __restrict__ C, int N) {
    __shared__ scalar_t a_tile[32][33];
    __shared__ scalar_t b_tile[32][33];
    const int row = blockIdx.y * 32 + threadIdx.y;
    const int col = blockIdx.x * 32 + threadIdx.x;
    scalar_t value = 0;
    for (int k = 0; k < N; k += 32) {
        a_tile[threadIdx.y][threadIdx.x] = (row < N && k + threadIdx.x < N) ? A[row * N + k + threadIdx.x] : scalar_t(0);
        b_tile[threadIdx.y][threadIdx.x] = (k + threadIdx.y < N && col < N) ? B[(k + threadIdx.y) * N + col] : scalar_t(0);
        __syncthreads();
        #pragma unroll
        for (int i = 0; i < 32; ++i) value += a_tile[threadIdx.y][i] * b_tile[i][threadIdx.x];
        __syncthreads();
    }
    if (row < N && col < N) C[row * N + col] = value;
}

torch::Tensor symmetric_matmul(torch::Tensor A, torch::Tensor B) {
    const int N = A.size(0);
    auto C = torch::empty({N, N}, A.options());
    dim3 block(32, 32);
    dim3 grid((N + 31) / 32, (N + 31) / 32);
    AT_DISPATCH_FLOATING_TYPES(A.scalar_type(), "symmetric_matmul", ([&] {
        symm_kernel<scalar_t><<<grid, block, 0, c10::cuda::getCurrentCUDAStream()>>>(
            A.data_ptr<scalar_t>(), B.data_ptr<scalar_t>(), C.data_ptr<scalar_t>(), N);
    }));
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    return C;
}
"""

symm = load_inline(
    name="symm_ext",
    cpp_sources="torch::Tensor symmetric_matmul(torch::Tensor A, torch::Tensor B);",
    cuda_sources=source,
    functions=["symmetric_matmul"],
    verbose=True,
)


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, A, B):
        return symm.symmetric_matmul(A, B)
