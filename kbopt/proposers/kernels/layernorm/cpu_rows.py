"""Layer normalisation over the last dimension, of the sum of one or two tensors."""
# seed: layernorm/cpu_rows

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

// Sums are kept in SUMS places side by side, in registers: independent, and more accurate.
#define EACH(i) for (int i = 0; i < SUMS; i++)

static inline float sum_of_squares(const float *x, int64_t n, float mean) {
    float sums[SUMS] = {0}, sum = 0.0f;
    int64_t k = 0;
    for (; k + SUMS <= n; k += SUMS) EACH(i) {
        float d = x[k + i] - mean;
        sums[i] += d * d;
    }
    for (; k < n; k++) sum += (x[k] - mean) * (x[k] - mean);
    EACH(i) sum += sums[i];
    return sum;
}

static inline float sum_of(const float *x, int64_t n) {
    float sums[SUMS] = {0}, sum = 0.0f;
    int64_t k = 0;
    for (; k + SUMS <= n; k += SUMS) EACH(i) sums[i] += x[k + i];
    for (; k < n; k++) sum += x[k];
    EACH(i) sum += sums[i];
    return sum;
}

void layernorm(const float *restrict x, const float *restrict residual, const float *restrict weight,
               const float *restrict bias, float *restrict y, int64_t rows, int64_t n, float eps,
               int threads) {
    #pragma omp parallel for schedule(SCHEDULE) num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
        const float *in = x + row * n, *more = residual + row * n;
        float *out = y + row * n;
        if (residual) for (int64_t k = 0; k < n; k++) out[k] = in[k] + more[k];
        else for (int64_t k = 0; k < n; k++) out[k] = in[k];
        float mean = sum_of(out, n) / n;
        float scale = 1.0f / sqrtf(sum_of_squares(out, n, mean) / n + eps);
        for (int64_t k = 0; k < n; k++) out[k] = (out[k] - mean) * scale * weight[k] + bias[k];
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
    def __init__(self, features: int):
        super().__init__()
        self.norm = nn.LayerNorm(features)

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        n = x.shape[-1]
        if residual is not None:
            residual = residual.contiguous()
        more = address(residual) if residual is not None else ctypes.c_void_p()
        parameters = (address(self.norm.weight), address(self.norm.bias))
        sizes = (ctypes.c_int64(x.numel() // n), ctypes.c_int64(n), ctypes.c_float(self.norm.eps))
        library.layernorm(address(x), more, *parameters, address(y), *sizes, torch.get_num_threads())
        return y
