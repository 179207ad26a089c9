"""A chain of pointwise operations in one pass over memory, one contiguous part for each thread."""
# seed: elementwise/cpu_stream

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
#include <stdint.h>

#define PREFETCH 0  // tune: 0, 64, 256, 1024
#define LINE 16  // floats in a cache line

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

static inline float clamp_(float x, float low, float high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

static inline float formula(float x, float z) {
    (void)z;
    return x;  // variant: c
}

void chain(const float *restrict x, const float *restrict z, float *restrict y, int64_t n, int threads) {
    int64_t lines = n / LINE;
    #pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t line = 0; line < lines; line++) {
        int64_t start = line * LINE;
        if (PREFETCH) __builtin_prefetch(x + start + PREFETCH);
        #pragma omp simd
        for (int64_t i = start; i < start + LINE; i++) y[i] = formula(x[i], z[i]);
    }
    for (int64_t i = lines * LINE; i < n; i++) y[i] = formula(x[i], z[i]);
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
    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        x, z = inputs[0].contiguous(), inputs[-1].contiguous()
        y = torch.empty_like(x)
        size = ctypes.c_int64(x.numel())
        library.chain(address(x), address(z), address(y), size, torch.get_num_threads())
        return y
