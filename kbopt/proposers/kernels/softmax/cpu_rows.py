"""Softmax over the last dimension: each row is read once from memory and worked on in the cache."""
# seed: softmax/cpu_rows

import ctypes
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

import torch
import torch.nn as nn

OPTIMIZATION = "-O3"  # tune: "-O2", "-O3"
UNROLLING = "-fno-unroll-loops"  # tune: "-fno-unroll-loops", "-funroll-loops"

C_SOURCE = r"""
#include <math.h>
#include <stdint.h>

#define SCHEDULE static  // tune: static, dynamic, guided
#define SUMS 16  // tune: 8, 16, 32, 64

// begin: vector math
static inline float from_bits(int32_t bits) { float x; __builtin_memcpy(&x, &bits, 4); return x; }
static inline int32_t to_bits(float x) { int32_t bits; __builtin_memcpy(&bits, &x, 4); return bits; }

// e to the x within 2 ulp; inf, 0 and NaN as in expf, whose calls would keep a loop from becoming SIMD code.
static inline float exp_(float x) {
    x = x > 89.0f ? 89.0f : x;
    x = x < -105.0f ? -105.0f : x;
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
    int32_t whole = to_bits(shifted) - 0x4B400000, half = whole >> 1;  // two steps: 2^128 does not fit one
    return p * from_bits((half + 127) << 23) * from_bits((whole - half + 127) << 23);
}
// end: vector math

// Sums and maxima are kept in SUMS places side by side, in registers: independent, and more accurate.
#define EACH(i) for (int i = 0; i < SUMS; i++)

static inline float max_of(const float *x, int64_t n) {
    float best[SUMS], most = -INFINITY;
    EACH(i) best[i] = -INFINITY;
    int64_t k = 0;
    for (; k + SUMS <= n; k += SUMS) EACH(i) best[i] = x[k + i] > best[i] ? x[k + i] : best[i];
    for (; k < n; k++) most = x[k] > most ? x[k] : most;
    EACH(i) most = best[i] > most ? best[i] : most;
    return most;
}

void softmax(const float *restrict x, float *restrict y, int64_t rows, int64_t n, float temperature,
             int threads) {
    float sharpness = 1.0f / temperature;
    #pragma omp parallel for schedule(SCHEDULE) num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
        const float *in = x + row * n;
        float *out = y + row * n;
        float most = max_of(in, n), sums[SUMS] = {0}, sum = 0.0f;
        int64_t k = 0;
        for (; k + SUMS <= n; k += SUMS) EACH(i) {
            out[k + i] = exp_((in[k + i] - most) * sharpness);
            sums[i] += out[k + i];
        }
        for (; k < n; k++) {
            out[k] = exp_((in[k] - most) * sharpness);
            sum += out[k];
        }
        EACH(i) sum += sums[i];
        float scale = 1.0f / sum;
        for (k = 0; k < n; k++) out[k] *= scale;
    }
}
"""


# begin: build
def build(source: str, *flags: str) -> ctypes.CDLL:
    """The compiled source, from the folder of an earlier call where the source and the flags agree."""
    command = [
        "cc",
        "-shared",
        "-fPIC",
        "-fopenmp",
        "-march=native",
        "-fno-math-errno",
        "-fno-trapping-math",
        *flags,
    ]
    key = hashlib.sha256("\0".join([*command, source]).encode()).hexdigest()[:16]
    private = Path(tempfile.gettempdir()) / f"kernels-{os.getuid()}"
    folder = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or private)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    library = folder / f"{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            unfinished = Path(scratch) / "kernel.so"
            command += ["-x", "c", "-", "-o", str(unfinished), "-lm"]
            done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
            unfinished.replace(library)
    return ctypes.CDLL(str(library))


def address(x: torch.Tensor) -> ctypes.c_void_p:
    """Where the values of a contiguous fp32 tensor on the CPU lie."""
    if x.dtype != torch.float32 or x.device.type != "cpu" or not x.is_contiguous():
        raise TypeError(f"this kernel takes contiguous fp32 tensors on the CPU, not {x.dtype} on {x.device}")
    return ctypes.c_void_p(x.data_ptr())


# end: build


library = build(C_SOURCE, OPTIMIZATION, UNROLLING)


class ModelNew(nn.Module):
    def __init__(self, temperature: float = 1.0):
        super().__init__()
        if not temperature > 0.0:
            raise ValueError(f"this kernel takes a positive temperature, not {temperature}")
        self.temperature = temperature

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        n = x.shape[-1]
        rows = ctypes.c_int64(x.numel() // n)
        temperature = ctypes.c_float(self.temperature)
        library.softmax(address(x), address(y), rows, ctypes.c_int64(n), temperature, torch.get_num_threads())
        return y
