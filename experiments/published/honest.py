"""GELU in one pass over memory instead of eight, by a C++ function that PyTorch builds and loads."""

import torch
from torch.utils.cpp_extension import load_inline

SOURCE = r"""
#include <ATen/Parallel.h>
#include <cmath>

// e to the x for what tanh needs: no call stands in the loop, so that it becomes SIMD code.
static inline float exp_(float x) {
    x = x > 88.0f ? 88.0f : (x < -87.0f ? -87.0f : x);
    float shifted = x * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds to an integer, in the low bits
    float n = shifted - 12582912.0f;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits;
    __builtin_memcpy(&bits, &shifted, 4);
    bits = (bits - 0x4B400000 + 127) << 23;
    float scale;
    __builtin_memcpy(&scale, &bits, 4);
    return p * scale;
}

torch::Tensor gelu(torch::Tensor x) {
    auto input = x.contiguous();
    auto output = torch::empty_like(input);
    const float* from = input.data_ptr<float>();
    float* to = output.data_ptr<float>();
    at::parallel_for(0, input.numel(), 16384, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
            float v = from[i];
            // Twice the argument of tanh, since 1 + tanh(t) = 2 / (1 + e^-2t).
            float inner = 1.5957691216f * (v + 0.044715f * v * v * v);
            to[i] = v / (1.0f + exp_(-inner));
        }
    });
    return output;
}
"""
extension = load_inline(
    name="published_gelu",
    cpp_sources=SOURCE,
    functions=["gelu"],
    # Without traps and errno a comparison is no branch, so that the loop becomes SIMD code.
    extra_cflags=["-O3", "-march=native", "-fopenmp", "-fno-trapping-math", "-fno-math-errno"],
)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return extension.gelu(x)
