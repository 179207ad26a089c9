import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

source = """
#include <torch/extension.h>
#include <cuda_runtime.h>

#define CHECK_CUDA(x) TORCH_CHECK(x.device().is_cuda(), #x " must be a CUDA tensor")
#define CHECK_CONTIGUOUS(x) TORCH_CHECK(x.is_contiguous(), #x " must be contiguous")
#define CHECK_INPUT(x) CHECK_CUDA(x); CHECK_CONTIGUOUS(x)

__global__ void upper_kernel(const float* A, const float* B, float* C, int N) {
    int row = blockIdx.y * blockDim.y + threadIdx.y;
    int col = blockIdx.x * blockDim.x + threadIdx.x;
    if (row < N && col < N) {
        float sum = 0.0f;
        if (row <= col) {
            // A and B are upper triangular: only row <= k <= col contributes
            for (int k = row; k <= col; ++k) {
                sum += A[row * N + k] * B[k * N + col];
            }
        }
        C[row * N + col] = sum;
    }
}

torch::Tensor upper_matmul(torch::Tensor A, torch::Tensor B) {
    CHECK_INPUT(A);
    CHECK_INPUT(B);
    const int N = A.size(0);
    auto C = torch::zeros_like(A);
    const dim3 threads(16, 16);
    const dim3 blocks((N + threads.x - 1) / threads.x, (N + threads.y - 1) / threads.y);
    upper_kernel<<<blocks, threads>>>(A.data_ptr<float>(), B.data_ptr<float>(), C.data_ptr<float>(), N);
    return C;
}
"""

upper = load_inline(
    name="upper_triangular_matmul",
    cpp_sources="torch::Tensor upper_matmul(torch::Tensor A, torch::Tensor B);",
    cuda_sources=source,
    functions=["upper_matmul"],
    extra_cuda_cflags=["-O2"],
)


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, A, B):
        return upper.upper_matmul(A.contiguous(), B.contiguous())
