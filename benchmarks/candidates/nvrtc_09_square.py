import torch
import torch.nn as nn

source = """
extern "C" __global__ void square_matmul(const float* A, const float* B, float* C, int N) {
    __shared__ float As[32][32];
    __shared__ float Bs[32][32];
    const int row = blockIdx.y * 32 + threadIdx.y, col = blockIdx.x * 32 + threadIdx.x;
    float acc = 0.0f;
    for (int k = 0; k < N; k += 32) {
        As[threadIdx.y][threadIdx.x] = (row < N && k + threadIdx.x < N) ? A[row * N + k + threadIdx.x] : 0.0f;
        Bs[threadIdx.y][threadIdx.x] = (k + threadIdx.y < N && col < N) ? B[(k + threadIdx.y) * N + col] : 0.0f;
        __syncthreads();
        for (int i = 0; i < 32; ++i) acc += As[threadIdx.y][i] * Bs[i][threadIdx.x];
        __syncthreads();
    }
    if (row < N && col < N) C[row * N + col] = acc;
}
"""

kernel = torch.cuda._compile_kernel(source, "square_matmul")


class ModelNew(nn.Module):
    def forward(self, A, B):
        N = A.shape[0]
        C = torch.empty_like(A)
        blocks = (N + 31) // 32
        kernel((blocks, blocks, 1), (32, 32, 1), (A, B, C, N))
        return C
