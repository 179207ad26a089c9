import torch
import torch.nn as nn


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = torch.cuda._compile_kernel(
            """
            extern "C" __global__ void scale_rows(const float* a, const float* b, float* c, int columns) {
                const long long row = blockIdx.x;
                const float s = a[row];
                for (int j = threadIdx.x; j < columns; j += blockDim.x) c[row * columns + j] = s * b[row * columns + j];
            }
            """,
            "scale_rows",
        )

    def forward(self, A, B):
        C = torch.empty_like(B)
        self.kernel((B.shape[0], 1, 1), (256, 1, 1), (A, B, C, B.shape[1]))
        return C
