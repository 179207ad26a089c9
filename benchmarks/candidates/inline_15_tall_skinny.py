import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

source = r"""
#include <torch/extension.h>
#include <cuda_runtime.h>

namespace py = pybind11;

__global__ void tall_skinny_kernel(const float* __restrict__ A, const float* __restrict__ B, float* __restrict__ C,
                                   int M, int N, int K) {
    __shared__ float As[64][17];
    __shared__ float Bs[16][64];
    const int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
    const int m0 = blockIdx.y * 64, n0 = blockIdx.x * 64;
    float acc[4][4] = {};
    for (int k0 = 0; k0 < K; k0 += 16) {
        for (int i = threadIdx.x; i < 64 * 16; i += 256) {
            As[i / 16][i % 16] = (m0 + i / 16 < M && k0 + i % 16 < K) ? A[(size_t)(m0 + i / 16) * K + k0 + i % 16] : 0.f;
            Bs[i / 64][i % 64] = (k0 + i / 64 < K && n0 + i % 64 < N) ? B[(size_t)(k0 + i / 64) * N + n0 + i % 64] : 0.f;
        }
        __syncthreads();
        #pragma unroll
        for (int k = 0; k < 16; ++k)
            #pragma unroll
            for (int i = 0; i < 4; ++i)
                #pragma unroll
                for (int j = 0; j < 4; ++j) acc[i][j] += As[ty * 4 + i][k] * Bs[k][tx * 4 + j];
        __syncthreads();
    }
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j)
            if (m0 + ty * 4 + i < M && n0 + tx * 4 + j < N)
                C[(size_t)(m0 + ty * 4 + i) * N + n0 + tx * 4 + j] = acc[i][j];
}

torch::Tensor tall_skinny(torch::Tensor A, torch::Tensor B) {
    const int M = A.size(0), K = A.size(1), N = B.size(1);
    auto C = torch::empty({M, N}, A.options());
    tall_skinny_kernel<<<dim3((N + 63) / 64, (M + 63) / 64), 256>>>(
        A.data_ptr<float>(), B.data_ptr<float>(), C.data_ptr<float>(), M, N, K);
    return C;
}
"""

# Keyword arguments in the bindings need pybind11 itself.
bindings = r"""
#include <torch/extension.h>
torch::Tensor tall_skinny(torch::Tensor A, torch::Tensor B);
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
    m.def("tall_skinny", &tall_skinny, "C = A B", py::arg("A"), py::arg("B"));
}
"""

ext = load_inline(name="tall_skinny_ext", cpp_sources=[bindings], cuda_sources=[source])


class ModelNew(nn.Module):
    def forward(self, A, B):
        return ext.tall_skinny(A=A.contiguous(), B=B.contiguous())
