"""Distances of the local embedder between real kernels: what the default epsilon was chosen from.

python benchmarks/search_embedding.py
"""

from __future__ import annotations

import re
import time

import numpy as np

from kbopt.core.embedding import LocalEmbedder
from kbopt.core.settings import DEFAULT_EPSILON

C_GELU = r'''
"""GELU in C with OpenMP, compiled when the module is loaded."""
import ctypes, subprocess, tempfile
import torch

BLOCK = 4096  # tune: 1024, 4096, 16384
THREADS = 2  # tune: 1, 2, 4

SOURCE = r"""
#include <math.h>
void gelu(const float* restrict x, float* restrict y, long n, long block) {
    #pragma omp parallel for schedule(static)
    for (long start = 0; start < n; start += block) {
        long stop = start + block < n ? start + block : n;  // the last block is shorter
        for (long i = start; i < stop; i++) {
            float v = x[i];
            y[i] = 0.5f * v * (1.0f + erff(v * 0.70710678f));
        }
    }
}
"""

def build():
    folder = tempfile.mkdtemp()
    with open(folder + "/k.c", "w") as file:
        file.write(SOURCE)
    subprocess.run(["cc", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC",
                    folder + "/k.c", "-o", folder + "/k.so", "-lm"], check=True)
    return ctypes.CDLL(folder + "/k.so")

LIB = build()

class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = torch.empty_like(x)
        LIB.gelu(ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(out.data_ptr()),
                 ctypes.c_long(x.numel()), ctypes.c_long(BLOCK))
        return out
'''

CUDA_GELU = r'''
import torch
from torch.utils.cpp_extension import load_inline

THREADS = 256  # tune: 128, 256, 512

SOURCE = r"""
#include <torch/extension.h>
__global__ void gelu_kernel(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        float v = x[i];
        y[i] = 0.5f * v * (1.0f + erff(v * 0.70710678f));
    }
}
torch::Tensor gelu(torch::Tensor x, int threads) {
    auto y = torch::empty_like(x);
    int n = x.numel();
    gelu_kernel<<<(n + threads - 1) / threads, threads>>>(x.data_ptr<float>(), y.data_ptr<float>(), n);
    return y;
}
"""

module = load_inline(name="gelu", cpp_sources="torch::Tensor gelu(torch::Tensor x, int threads);",
                     cuda_sources=SOURCE, functions=["gelu"])

class ModelNew(torch.nn.Module):
    def forward(self, x):
        return module.gelu(x.contiguous(), THREADS)
'''

TRITON_GELU = r"""
import torch
import triton
import triton.language as tl

BLOCK = 1024  # tune: 512, 1024, 2048
NUM_WARPS = 4  # tune: 2, 4, 8

@triton.jit
def gelu_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask)
    y = 0.5 * x * (1.0 + tl.erf(x * 0.70710678))
    tl.store(y_ptr + offsets, y, mask=mask)

class ModelNew(torch.nn.Module):
    def forward(self, x):
        y = torch.empty_like(x)
        n = x.numel()
        gelu_kernel[(triton.cdiv(n, BLOCK),)](x, y, n, BLOCK=BLOCK, num_warps=NUM_WARPS)
        return y
"""

TRITON_MATMUL = r"""
import torch
import triton
import triton.language as tl

BLOCK_M = 64  # tune: 32, 64, 128
BLOCK_N = 64  # tune: 32, 64, 128
BLOCK_K = 32  # tune: 16, 32, 64
GROUP_M = 8  # tune: 1, 4, 8
NUM_WARPS = 4  # tune: 2, 4, 8
NUM_STAGES = 3  # tune: 2, 3, 4

@triton.jit
def matmul_kernel(a_ptr, b_ptr, c_ptr, M, N, K, sam, sak, sbk, sbn, scm, scn,
                  BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr):
    pid = tl.program_id(0)
    num_m, num_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    width = GROUP_M * num_n
    group = pid // width
    size = min(num_m - group * GROUP_M, GROUP_M)
    pid_m = group * GROUP_M + (pid % size)
    pid_n = (pid % width) // size
    rm = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    rn = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    rk = tl.arange(0, BLOCK_K)
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, tl.cdiv(K, BLOCK_K)):
        inside = rk + k * BLOCK_K < K
        a = tl.load(a_ptr + rm[:, None] * sam + (rk + k * BLOCK_K)[None, :] * sak,
                    mask=(rm[:, None] < M) & inside[None, :], other=0.0)
        b = tl.load(b_ptr + (rk + k * BLOCK_K)[:, None] * sbk + rn[None, :] * sbn,
                    mask=inside[:, None] & (rn[None, :] < N), other=0.0)
        acc += tl.dot(a, b, allow_tf32=False)
    tl.store(c_ptr + rm[:, None] * scm + rn[None, :] * scn, acc, mask=(rm[:, None] < M) & (rn[None, :] < N))

class ModelNew(torch.nn.Module):
    def forward(self, A, B):
        M, K = A.shape
        N = B.shape[1]
        C = torch.empty((M, N), device=A.device)
        grid = (triton.cdiv(M, BLOCK_M) * triton.cdiv(N, BLOCK_N),)
        matmul_kernel[grid](A, B, C, M, N, K, *A.stride(), *B.stride(), *C.stride(), BLOCK_M=BLOCK_M,
                            BLOCK_N=BLOCK_N, BLOCK_K=BLOCK_K, GROUP_M=GROUP_M, num_warps=NUM_WARPS,
                            num_stages=NUM_STAGES)
        return C
"""

KERNELS = {
    "C gelu": C_GELU,
    "CUDA gelu": CUDA_GELU,
    "Triton gelu": TRITON_GELU,
    "Triton matmul": TRITON_MATMUL,
}

RENAMES = {
    "C gelu": {"gelu": "act", "v": "value", "start": "lo", "stop": "hi", "out": "result", "LIB": "HANDLE"},
    "CUDA gelu": {"gelu_kernel": "act_device", "v": "value", "i": "idx", "THREADS": "TPB"},
    "Triton gelu": {"gelu_kernel": "act", "offsets": "offs", "x_ptr": "inp", "y_ptr": "outp", "BLOCK": "BS"},
    "Triton matmul": {"acc": "accumulator", "rm": "rows", "rn": "cols", "BLOCK_M": "BM", "pid": "program"},
}
TUNED = {
    "C gelu": ("BLOCK = 4096", "BLOCK = 1024"),
    "CUDA gelu": ("THREADS = 256", "THREADS = 512"),
    "Triton gelu": ("NUM_WARPS = 4", "NUM_WARPS = 8"),
    "Triton matmul": ("NUM_STAGES = 3", "NUM_STAGES = 4"),
}
IDLE = {
    "C gelu": ("float v = x[i];", "const float v = (x[i]);"),
    "CUDA gelu": ("0.5f * v * (1", "(0.5f * v) * (1"),
    "Triton gelu": ("BLOCK=BLOCK, num_warps=NUM_WARPS)", "BLOCK=BLOCK, num_warps=NUM_WARPS,)"),
    "Triton matmul": ("        return C", "        result = C\n        return result"),
}
EDITED = {
    "C gelu": ("schedule(static)", "schedule(dynamic)"),
    "CUDA gelu": ("erff(v * 0.70710678f)", "tanhf(v * 0.79788456f * (1.0f + 0.044715f * v * v))"),
    "Triton gelu": ("mask=mask)\n    y", "mask=mask, other=0.0)\n    y"),
    "Triton matmul": ("allow_tf32=False", "allow_tf32=True"),
}


def renamed(name: str) -> str:
    source = KERNELS[name]
    for old, new in RENAMES[name].items():
        source = re.sub(rf"\b{old}\b", new, source)
    return source


def reformatted(name: str) -> str:
    """Comments gone, blank lines added, operators spread out, indentation doubled."""
    lines = [re.sub(r"\s*# tune:.*$", "", line) for line in KERNELS[name].splitlines()]
    lines = [re.sub(r"\s*//.*$", "", line) if ";" in line else line for line in lines]
    spread = [re.sub(r" (\*|\+) ", r"  \1  ", line) for line in lines]
    return "\n\n".join(re.sub(r"^( +)", r"\1\1", line) for line in spread)


def main() -> None:
    embedder = LocalEmbedder()

    def distance(a: str, b: str) -> float:
        u, v = embedder.embed([a, b])
        return float(np.linalg.norm(u - v))

    print("| kernel | renamed | reformatted | idle edit | tunable changed | line edited | nearest other |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, source in KERNELS.items():
        others = {other: distance(source, KERNELS[other]) for other in KERNELS if other != name}
        nearest = min(others, key=lambda other: others[other])
        print(
            f"| {name} | {distance(source, renamed(name)):.4f} | {distance(source, reformatted(name)):.4f}"
            f" | {distance(source, source.replace(*IDLE[name])):.3f}"
            f" | {distance(source, source.replace(*TUNED[name])):.3f}"
            f" | {distance(source, source.replace(*EDITED[name])):.3f}"
            f" | {others[nearest]:.3f} ({nearest}) |"
        )
    start = time.perf_counter()
    embedder.embed([TRITON_MATMUL] * 50)
    print(
        f"\nepsilon by default: {DEFAULT_EPSILON}; {len(TRITON_MATMUL)} characters embedded in "
        f"{(time.perf_counter() - start) / 50 * 1e3:.1f} ms"
    )


if __name__ == "__main__":
    main()
