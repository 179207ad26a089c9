import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

source = r"""
#include <torch/extension.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/util/Half.h>

template <typename scalar_t>
__global__ void bmm_kernel(const scalar_t* __restrict__ A, const scalar_t* __restrict__ B, scalar_t* __restrict__ C,
                           int M, int N, int K) {
    __shared__ float As[32][32];
    __shared__ float Bs[32][32];
    const scalar_t* a = A + (size_t)blockIdx.z * M * K;
    const scalar_t* b = B + (size_t)blockIdx.z * K * N;
    const int row = blockIdx.y * 32 + threadIdx.y, col = blockIdx.x * 32 + threadIdx.x;
    float acc = 0.0f;
    for (int k = 0; k < K; k += 32) {
        As[threadIdx.y][threadIdx.x] =
            (row < M && k + threadIdx.x < K) ? static_cast<float>(a[row * K + k + threadIdx.x]) : 0.0f;
        Bs[threadIdx.y][threadIdx.x] =
            (k + threadIdx.y < K && col < N) ? static_cast<float>(b[(k + threadIdx.y) * N + col]) : 0.0f;
        __syncthreads();
        #pragma unroll
        for (int i = 0; i < 32; ++i) acc += As[threadIdx.y][i] * Bs[i][threadIdx.x];
        __syncthreads();
    }
    if (row < M && col < N) C[((size_t)blockIdx.z * M + row) * N + col] = static_cast<scalar_t>(acc);
}

torch::Tensor bmm(torch::Tensor A, torch::Tensor B) {
    c10::cuda::CUDAGuard guard(A.device());
    const int batch = A.size(0), M = A.size(1), K = A.size(2), N = B.size(2);
    auto C = torch::empty({batch, M, N}, A.options());
    dim3 block(32, 32);
    dim3 grid((N + 31) / 32, (M + 31) / 32, batch);
    AT_DISPATCH_FLOATING_TYPES_AND_HALF(A.scalar_type(), "bmm", [&] {
        bmm_kernel<scalar_t><<<grid, block, 0, at::cuda::getCurrentCUDAStream()>>>(
            A.data_ptr<scalar_t>(), B.data_ptr<scalar_t>(), C.data_ptr<scalar_t>(), M, N, K);
    });
    C10_CUDA_CHECK(cudaGetLastError());
    return C;
}
"""

ext = load_inline(
    name="bmm_any_type",
    cpp_sources="torch::Tensor bmm(torch::Tensor A, torch::Tensor B);",
    cuda_sources=source,
    functions=["bmm"],
)


class ModelNew(nn.Module):
    def forward(self, A, B):
        return ext.bmm(A.contiguous(), B.contiguous())
