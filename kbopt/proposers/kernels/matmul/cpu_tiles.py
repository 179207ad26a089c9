"""Matrix product, batched or not, from packed panels and a tile that stays in registers."""
# seed: matmul/cpu_tiles

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
#include <stdlib.h>
#include <string.h>

#define LANES 8  // tune: 4, 8, 16
#define TILE_ROWS 6  // tune: 4, 6, 8
#define TILE_VECTORS 2  // tune: 1, 2, 3
#define DEPTH 256  // tune: 64, 128, 256, 512
#define BLOCK_ROWS 96  // tune: 24, 48, 96, 192
#define BLOCK_COLUMNS 768  // tune: 192, 384, 768

// begin: tile
#define TILE_COLUMNS (LANES * TILE_VECTORS)
#define ROUND_UP(n, to) (((n) + (to) - 1) / (to) * (to))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

// c (rows, columns) += a (depth, TILE_ROWS) transposed times b (depth, TILE_COLUMNS), all of it in registers.
static void multiply_tile(const float *restrict a, const float *restrict b, int64_t depth, float *restrict c,
                          int64_t stride, int64_t rows, int64_t columns) {
    vector sums[TILE_ROWS][TILE_VECTORS] = {0};
    for (int64_t k = 0; k < depth; k++, a += TILE_ROWS, b += TILE_COLUMNS)
        #pragma GCC unroll 8
        for (int i = 0; i < TILE_ROWS; i++)
            #pragma GCC unroll 4
            for (int v = 0; v < TILE_VECTORS; v++) sums[i][v] += a[i] * ((const vector *)b)[v];
    if (rows >= TILE_ROWS && columns >= TILE_COLUMNS) {
        #pragma GCC unroll 8
        for (int i = 0; i < TILE_ROWS; i++)
            #pragma GCC unroll 4
            for (int v = 0; v < TILE_VECTORS; v++) ((vector *)(c + i * stride))[v] += sums[i][v];
        return;
    }
    float whole[TILE_ROWS][TILE_COLUMNS];
    memcpy(whole, sums, sizeof whole);
    for (int i = 0; i < MIN(rows, TILE_ROWS); i++)
        for (int j = 0; j < MIN(columns, TILE_COLUMNS); j++) c[i * stride + j] += whole[i][j];
}

// Copies x (depth, width) into panels of `step` columns, (depth, step) each, filled up with zeros.
static void pack(const float *restrict x, int64_t stride_depth, int64_t stride_width, int64_t depth,
                 int64_t width, int64_t step, float *restrict to) {
    for (int64_t j = 0; j < width; j += step)
        for (int64_t k = 0; k < depth; k++, to += step) {
            const float *from = x + k * stride_depth + j * stride_width;
            if (stride_width == 1 && j + step <= width) memcpy(to, from, step * sizeof *to);
            else for (int64_t i = 0; i < step; i++) to[i] = j + i < width ? from[i * stride_width] : 0.0f;
        }
}
// end: tile

// One block of rows of one product; A is (m, depth), B is (depth, n), C is (m, n) and contiguous.
static void multiply_rows(const float *a, int64_t a_row, int64_t a_k, const float *b, int64_t b_k,
                          int64_t b_column, float *c, int64_t m, int64_t n, int64_t depth, float *packed_a,
                          float *packed_b) {
    memset(c, 0, m * n * sizeof *c);
    for (int64_t j = 0; j < n; j += BLOCK_COLUMNS) {
        int64_t columns = MIN(BLOCK_COLUMNS, n - j);
        for (int64_t k = 0; k < depth; k += DEPTH) {
            int64_t deep = MIN(DEPTH, depth - k);
            pack(b + k * b_k + j * b_column, b_k, b_column, deep, columns, TILE_COLUMNS, packed_b);
            pack(a + k * a_k, a_k, a_row, deep, m, TILE_ROWS, packed_a);
            for (int64_t jj = 0; jj < columns; jj += TILE_COLUMNS)
                for (int64_t i = 0; i < m; i += TILE_ROWS)
                    multiply_tile(packed_a + i * deep, packed_b + jj * deep, deep, c + i * n + j + jj, n,
                                  m - i, columns - jj);
        }
    }
}

void matmul(const float *a, int64_t a_batch, int64_t a_row, int64_t a_k, const float *b, int64_t b_batch,
            int64_t b_k, int64_t b_column, float *c, int64_t batches, int64_t m, int64_t n, int64_t depth,
            int threads) {
    int64_t blocks = (m + BLOCK_ROWS - 1) / BLOCK_ROWS;
    #pragma omp parallel num_threads(threads)
    {
        float *packed_a = malloc(sizeof(float) * DEPTH * ROUND_UP(BLOCK_ROWS, TILE_ROWS));
        float *packed_b = malloc(sizeof(float) * DEPTH * ROUND_UP(BLOCK_COLUMNS, TILE_COLUMNS));
        #pragma omp for schedule(static)
        for (int64_t item = 0; item < batches * blocks; item++) {
            int64_t batch = item / blocks, row = item % blocks * BLOCK_ROWS;
            multiply_rows(a + batch * a_batch + row * a_row, a_row, a_k, b + batch * b_batch, b_k, b_column,
                          c + (batch * m + row) * n, MIN(BLOCK_ROWS, m - row), n, depth, packed_a, packed_b);
        }
        free(packed_a);
        free(packed_b);
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
        B = B.contiguous().mT if TRANSPOSE_B else B.contiguous()
        C = A.new_empty((*A.shape[:-1], B.shape[-1]))
        if B.dim() == 2:
            A = A.flatten(0, -2) if A.dim() > 2 else A
            A, B = A.unsqueeze(0), B.unsqueeze(0)
        batches, m, depth = A.shape
        numbers = [ctypes.c_int64(number) for number in (batches, m, B.shape[-1], depth)]
        a = (ctypes.c_void_p(A.data_ptr()), *map(ctypes.c_int64, A.stride()))
        b = (ctypes.c_void_p(B.data_ptr()), *map(ctypes.c_int64, B.stride()))
        library.matmul(*a, *b, address(C), *numbers, torch.get_num_threads())
        return C
