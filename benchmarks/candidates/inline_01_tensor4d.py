import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

cuda_src = r'''
#include <torch/extension.h>
#include <cuda.h>
#include <cuda_runtime.h>
#include <vector>

constexpr int BM = 64;
constexpr int BN = 64;
constexpr int BK = 16;
constexpr int TM = 4;
constexpr int TN = 4;

__global__ void __launch_bounds__(256)
einsum_kernel(const float* __restrict__ A, const float* __restrict__ B, float* __restrict__ C,
              const int M, const int N, const int K) {
    __shared__ float As[BK][BM];
    __shared__ float Bs[BK][BN];
    const int tx = threadIdx.x % 16;
    const int ty = threadIdx.x / 16;
    const int m0 = blockIdx.y * BM;
    const int n0 = blockIdx.x * BN;
    float acc[TM][TN] = {{0.0f}};
    for (int k0 = 0; k0 < K; k0 += BK) {
        for (int i = threadIdx.x; i < BM * BK; i += 256) {
            const int m = i / BK, k = i % BK;
            As[k][m] = (m0 + m < M && k0 + k < K) ? A[(size_t)(m0 + m) * K + k0 + k] : 0.0f;
        }
        for (int i = threadIdx.x; i < BK * BN; i += 256) {
            const int k = i / BN, n = i % BN;
            Bs[k][n] = (k0 + k < K && n0 + n < N) ? B[(size_t)(k0 + k) * N + n0 + n] : 0.0f;
        }
        __syncthreads();
        #pragma unroll
        for (int k = 0; k < BK; ++k) {
            float a[TM], b[TN];
            #pragma unroll
            for (int i = 0; i < TM; ++i) a[i] = As[k][ty * TM + i];
            #pragma unroll
            for (int j = 0; j < TN; ++j) b[j] = Bs[k][tx * TN + j];
            #pragma unroll
            for (int i = 0; i < TM; ++i)
                #pragma unroll
                for (int j = 0; j < TN; ++j) acc[i][j] += a[i] * b[j];
        }
        __syncthreads();
    }
    for (int i = 0; i < TM; ++i)
        for (int j = 0; j < TN; ++j) {
            const int m = m0 + ty * TM + i, n = n0 + tx * TN + j;
            if (m < M && n < N) C[(size_t)m * N + n] = acc[i][j];
        }
}

torch::Tensor einsum_cuda(torch::Tensor A, torch::Tensor B) {
    TORCH_CHECK(A.dim() == 4, "A must be 4D, got ", A.dim());
    TORCH_CHECK(B.dim() == 2, "B must be 2D");
    TORCH_CHECK(A.is_cuda() && B.is_cuda(), "inputs must be CUDA tensors");
    TORCH_CHECK(A.scalar_type() == torch::kFloat32, "only float32 is supported");
    auto sizes = A.sizes();
    const int64_t b = sizes[0], i = sizes[1], j = sizes[2], l = sizes[3];
    const int64_t k = B.size(1);
    auto C = torch::empty({b, i, j, k}, A.options());
    const int M = static_cast<int>(b * i * j);
    dim3 grid((k + BN - 1) / BN, (M + BM - 1) / BM);
    einsum_kernel<<<grid, 256>>>(A.data_ptr<float>(), B.data_ptr<float>(), C.data_ptr<float>(), M, (int)k, (int)l);
    cudaError_t err = cudaGetLastError();
    TORCH_CHECK(err == cudaSuccess, "CUDA kernel failed: ", cudaGetErrorString(err));
    return C;
}
'''

cpp_src = "torch::Tensor einsum_cuda(torch::Tensor A, torch::Tensor B);"

einsum_ext = load_inline(
    name="einsum_ext",
    cpp_sources=[cpp_src],
    cuda_sources=[cuda_src],
    functions=["einsum_cuda"],
    extra_cuda_cflags=["-O3", "--use_fast_math"],
)


class ModelNew(nn.Module):
    def __init__(self):
        super(ModelNew, self).__init__()

    def forward(self, A, B):
        return einsum_ext.einsum_cuda(A.contiguous(), B.contiguous())
