"""Every tier of a profile on this machine's device, and what each takes.

python3 benchmarks/profile_tiers.py [--device cuda:0] [--without counters]

Profiles three kernels of one task through the evaluation service: a softmax over rows in CUDA, the same in
Triton, and the reference. Prints each profile in words, the seconds of each tier with its processes, and
those in which the device was held. Exits with 1 where a tier is missing that is not named by --without, where
a kernel has no registers, occupancy or instructions, or where no bottleneck was told. Needs torch, Triton,
nvcc and ncu; no other package. On a CPU only the reference is profiled, and counters are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from kbopt.core.profile import Code, Missing, NotProfiled, Profile, Profiled, ProfileRequest, Trace
from kbopt.core.profile_text import text_of
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.evaluation.client import ServiceClient

TIERS = ("code", "trace", "counters", "reference")
TASK = Task(
    name="softmax",
    source="""
import torch

class Model(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1)

def get_inputs():
    return [torch.randn(8192, 4096)]

def get_init_inputs():
    return []
""",
)
CUDA = '''
import torch
from torch.utils.cpp_extension import load_inline

SOURCE = r"""
#include <torch/extension.h>
#include <c10/cuda/CUDAStream.h>

__global__ void softmax_rows(const float* x, float* y, int n) {
  __shared__ float part[256];
  const float* row = x + (long)blockIdx.x * n;
  float* out = y + (long)blockIdx.x * n;
  float most = -INFINITY, sum = 0.0f;
  for (int i = threadIdx.x; i < n; i += blockDim.x) most = fmaxf(most, row[i]);
  part[threadIdx.x] = most;
  __syncthreads();
  for (int step = blockDim.x / 2; step; step /= 2) {
    if (threadIdx.x < step) part[threadIdx.x] = fmaxf(part[threadIdx.x], part[threadIdx.x + step]);
    __syncthreads();
  }
  most = part[0];
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += expf(row[i] - most);
  part[threadIdx.x] = sum;
  __syncthreads();
  for (int step = blockDim.x / 2; step; step /= 2) {
    if (threadIdx.x < step) part[threadIdx.x] += part[threadIdx.x + step];
    __syncthreads();
  }
  sum = part[0];
  for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = expf(row[i] - most) / sum;
}

torch::Tensor softmax(torch::Tensor x) {
  auto y = torch::empty_like(x);
  int n = x.size(-1);
  softmax_rows<<<x.numel() / n, 256, 0, c10::cuda::getCurrentCUDAStream()>>>(
      x.data_ptr<float>(), y.data_ptr<float>(), n);
  return y;
}
"""
extension = load_inline(
    name="profile_tiers", cpp_sources="torch::Tensor softmax(torch::Tensor x);", cuda_sources=SOURCE,
    functions=["softmax"],
)

class ModelNew(torch.nn.Module):
    def forward(self, x):
        return extension.softmax(x.contiguous())
'''
TRITON = """
import torch
import triton
import triton.language as tl

@triton.jit
def softmax_rows(x, y, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    start = tl.program_id(0).to(tl.int64) * n
    row = tl.load(x + start + at, mask=at < n, other=-float("inf"))
    row = tl.exp(row - tl.max(row, 0))
    tl.store(y + start + at, row / tl.sum(row, 0), mask=at < n)

class ModelNew(torch.nn.Module):
    def forward(self, x):
        x = x.contiguous()
        y = torch.empty_like(x)
        n = x.shape[-1]
        softmax_rows[(x.numel() // n,)](x, y, n, BLOCK=triton.next_power_of_2(n), num_warps=8)
        return y
"""


def faults(name: str, found: Profile, without: set[str]) -> list[str]:
    """What is missing of a profile on a GPU, in words."""
    tiers = {
        "code": found.code,
        "trace": found.trace,
        "counters": found.counters,
        "reference": found.reference,
    }
    missing = [
        f"{tier}: {value.reason}"
        for tier, value in tiers.items()
        if isinstance(value, Missing) and tier not in without
    ]
    if found.bottleneck is None:
        missing.append("no bottleneck was told")
    if name == "reference":
        return [fault for fault in missing if not fault.startswith("code: ")]
    if isinstance(found.code, Code):
        kernel = next((kernel for kernel in found.code.kernels if "softmax_rows" in kernel.name), None)
        if kernel is None or not kernel.registers or not kernel.instructions or not kernel.mix:
            missing.append(f"code: no registers or instructions of softmax_rows, but {found.code}")
    if isinstance(found.trace, Trace):
        launch = next((part.launch for part in found.trace.parts if "softmax_rows" in part.name), None)
        if launch is None or not launch.occupancy:
            missing.append(f"trace: no occupancy of softmax_rows, but {found.trace.parts}")
    return missing


async def main(device: str, without: set[str]) -> int:
    with tempfile.TemporaryDirectory() as state:
        client = ServiceClient(device=device, state_dir=Path(state))
        about = await client.open()
        sources = {"reference": TASK.equal_code}
        if about.is_cuda:
            sources = {"cuda": CUDA, "triton": TRITON, **sources}
        else:
            without |= {"counters"}
        try:
            failed = False
            for name, source in sources.items():
                request = ProfileRequest(task=TASK, source=source, protocol=EvalProtocol())
                found: Profiled = await client.profile(request)
                print(f"\n== {name}")
                if isinstance(found, NotProfiled):
                    print(f"FAILED: {found.reason}")
                    failed = True
                    continue
                print(text_of(found))
                print(f"{found.seconds}")
                for fault in faults(name, found, without):
                    print(f"FAILED: {fault}")
                    failed = True
        finally:
            await client.close()
    print("\nFAILED" if failed else "\nall tiers are there")
    return int(failed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--without", action="append", choices=TIERS, default=[], help="a tier that may lack")
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.device, set(given.without))))
