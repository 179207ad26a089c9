"""Matrix product, batched or not, straight from the factors: small ones would be slowed down by packing."""
# seed: matmul/cpu_direct

import ctypes
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

import torch
import torch.nn as nn

OPTIMIZATION = "-O3"  # tune: "-O2", "-O3"

C_SOURCE = r"""
#include <stdint.h>
#include <string.h>

#define LANES 8  // tune: 4, 8, 16
#define TILE_ROWS 4  // tune: 2, 3, 4, 6, 8
#define TILE_VECTORS 3  // tune: 1, 2, 3, 4
#define BLOCK_ROWS 96  // tune: 24, 48, 96, 192

#define TILE_COLUMNS (LANES * TILE_VECTORS)
#define MIN(a, b) ((a) < (b) ? (a) : (b))

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

// c (TILE_ROWS, TILE_COLUMNS) = a times b, all of it in registers.
static void multiply_tile(const float *restrict a, int64_t a_row, int64_t a_k, const float *restrict b,
                          float *restrict c, int64_t n, int64_t depth) {
    vector sums[TILE_ROWS][TILE_VECTORS] = {0};
    for (int64_t k = 0; k < depth; k++)
        #pragma GCC unroll 8
        for (int i = 0; i < TILE_ROWS; i++)
            #pragma GCC unroll 4
            for (int v = 0; v < TILE_VECTORS; v++)
                sums[i][v] += a[i * a_row + k * a_k] * ((const vector *)(b + k * n))[v];
    for (int i = 0; i < TILE_ROWS; i++) memcpy(c + i * n, sums[i], sizeof sums[i]);
}

static void multiply_edge(const float *restrict a, int64_t a_row, int64_t a_k, const float *restrict b,
                          float *restrict c, int64_t n, int64_t depth, int64_t rows, int64_t columns) {
    for (int64_t i = 0; i < rows; i++) {
        memset(c + i * n, 0, columns * sizeof *c);
        for (int64_t k = 0; k < depth; k++)
            for (int64_t j = 0; j < columns; j++) c[i * n + j] += a[i * a_row + k * a_k] * b[k * n + j];
    }
}

// A is (m, depth) of any strides; B is (depth, n) and C is (m, n), both contiguous.
void matmul(const float *a, int64_t a_batch, int64_t a_row, int64_t a_k, const float *b, int64_t b_batch,
            float *c, int64_t batches, int64_t m, int64_t n, int64_t depth, int threads) {
    int64_t blocks = (m + BLOCK_ROWS - 1) / BLOCK_ROWS;
    #pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t item = 0; item < batches * blocks; item++) {
        int64_t batch = item / blocks, first = item % blocks * BLOCK_ROWS, last = MIN(m, first + BLOCK_ROWS);
        for (int64_t j = 0; j < n; j += TILE_COLUMNS)
            for (int64_t i = first; i < last; i += TILE_ROWS) {
                const float *left = a + batch * a_batch + i * a_row, *right = b + batch * b_batch + j;
                float *to = c + (batch * m + i) * n + j;
                if (i + TILE_ROWS <= last && j + TILE_COLUMNS <= n)
                    multiply_tile(left, a_row, a_k, right, to, n, depth);
                else
                    multiply_edge(left, a_row, a_k, right, to, n, depth, MIN(TILE_ROWS, last - i),
                                  MIN(TILE_COLUMNS, n - j));
            }
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


library = build(C_SOURCE, OPTIMIZATION)


TRANSPOSE_A = False  # variant: transpose_a
TRANSPOSE_B = False  # variant: transpose_b


class ModelNew(nn.Module):
    def forward(self, A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
        A = A.contiguous().mT if TRANSPOSE_A else A.contiguous()
        B = B.mT.contiguous() if TRANSPOSE_B else B.contiguous()
        C = A.new_empty((*A.shape[:-1], B.shape[-1]))
        if B.dim() == 2:
            A = A.flatten(0, -2) if A.dim() > 2 else A
            A, B = A.unsqueeze(0), B.unsqueeze(0)
        batches, m, depth = A.shape
        numbers = [ctypes.c_int64(number) for number in (batches, m, B.shape[-1], depth)]
        a = (ctypes.c_void_p(A.data_ptr()), *map(ctypes.c_int64, A.stride()))
        b = (address(B), ctypes.c_int64(B.stride(0)))
        library.matmul(*a, *b, address(C), *numbers, torch.get_num_threads())
        return C
