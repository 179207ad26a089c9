"""The evaluator on a real GPU. As a script it prints a table, for machines without pytest."""

import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kbopt.core.evaluations import EvalRequest, Result
from kbopt.core.outcomes import Measured, Rejected, outcome_name
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.evaluation.client import ServiceClient

MATMUL = """
import torch

class Model(torch.nn.Module):
    def forward(self, a, b):
        return torch.matmul(a, b)

def get_inputs():
    return [torch.rand(1024, 2048), torch.rand(2048, 1024)]

def get_init_inputs():
    return []
"""

ELEMENTWISE = """
import torch

class Model(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.gelu(x * 2 + 1) * x

def get_inputs():
    return [torch.randn(4096, 4096)]

def get_init_inputs():
    return []
"""

HEAD = "import torch\n\n\nclass ModelNew(torch.nn.Module):\n"
TRITON_HEAD = "import torch\nimport triton\nimport triton.language as tl\n\n\n"

PLAIN_MATMUL = HEAD + "    def forward(self, a, b):\n        return a @ b\n"
TF32_FLAG = "import torch\ntorch.backends.cuda.matmul.allow_tf32 = True\n" + PLAIN_MATMUL.removeprefix(
    "import torch\n"
)
HALF = HEAD + "    def forward(self, a, b):\n        return (a.half() @ b.half()).float()\n"

TRITON_MATMUL = (
    TRITON_HEAD
    + """@triton.jit
def product(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, K, BK):
        k = start + tl.arange(0, BK)
        left = tl.load(a + m[:, None] * K + k[None, :])
        right = tl.load(b + k[:, None] * N + n[None, :])
        total = tl.dot(left, right, total, input_precision="PRECISION")
    tl.store(c + m[:, None] * N + n[None, :], total)


class ModelNew(torch.nn.Module):
    def forward(self, a, b):
        (M, K), N = a.shape, b.shape[1]
        c = torch.empty(M, N, device=a.device, dtype=a.dtype)
        product[(M // 64, N // 64)](a, b, c, M, N, K, BM=64, BN=64, BK=32)
        return c
"""
)

TRITON_GELU = (
    TRITON_HEAD
    + """@triton.jit
def fused(x, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < n)
    inner = value * 2 + 1
    tl.store(y + at, 0.5 * inner * (1 + tl.erf(inner * 0.7071067811865476)) * value, mask=at < n)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        y = torch.empty_like(x)
        fused[(triton.cdiv(x.numel(), 1024),)](x, y, x.numel(), BLOCK=1024)
        return y
"""
)
TRITON_TASK = (
    TRITON_HEAD
    + """@triton.jit
def added(x, y, z, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(z + at, tl.load(x + at, mask=at < n) + tl.load(y + at, mask=at < n), mask=at < n)


class Model(torch.nn.Module):
    def forward(self, x, y):
        z = torch.empty_like(x)
        added[(triton.cdiv(x.numel(), 256),)](x, y, z, x.numel(), BLOCK=256)
        return z

def get_inputs():
    return [torch.randn(1024), torch.randn(1024)]

def get_init_inputs():
    return []
"""
)
PLAIN_SUM = HEAD + "    def forward(self, x, y):\n        return x + y\n"
TRITON_BUILT = TRITON_GELU.replace(
    "    def forward(self, x):\n",
    """    def forward(self, x):
        def listener(*, cache_hit, **_):
            if not cache_hit and type(x) is torch.Tensor:
                raise RuntimeError("a kernel was compiled while its source held the device")

        triton.knobs.compilation.listener = listener
""",
)
PLAIN_GELU = HEAD + "    def forward(self, x):\n        return torch.nn.functional.gelu(x * 2 + 1) * x\n"
ONE_GPU = (
    """import glob
import os


def can_open(file):
    try:
        os.close(os.open(file, os.O_RDWR))
    except OSError:
        return False
    return True


gpus = [file for file in glob.glob("/dev/nvidia[0-9]*") if can_open(file)]
if len(gpus) > 1:
    raise RuntimeError(f"{len(gpus)} GPUs")
"""
    + PLAIN_GELU
)
STREAM_ESCAPE = (
    HEAD
    + """    def __init__(self):
        super().__init__()
        self.stream = torch.cuda.Stream()
        torch.cuda.synchronize = lambda *a: None

    def forward(self, x):
        out = torch.empty_like(x)
        with torch.cuda.stream(self.stream):
            torch.cuda._sleep(10_000_000)
            torch.mul(torch.nn.functional.gelu(x * 2 + 1), x, out=out)
        return out
"""
)
STREAM_JOINED = (
    HEAD
    + """    def __init__(self):
        super().__init__()
        self.stream = torch.cuda.Stream()

    def forward(self, x):
        out = torch.empty_like(x)
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            torch.mul(torch.nn.functional.gelu(x * 2 + 1), x, out=out)
        torch.cuda.current_stream().wait_stream(self.stream)
        return out
"""
)
NOT_SHARED = (
    "import ctypes\n"
    + HEAD.replace(
        "class ModelNew",
        """DRIVER = ctypes.CDLL("libcuda.so.1")


class Memory:
    def __init__(self, like):
        self.address, size = ctypes.c_void_p(), ctypes.c_size_t(4 * like.numel())
        self.stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        assert not DRIVER.cuMemAllocAsync(ctypes.byref(self.address), size, self.stream)
        data = (self.address.value, False)
        self.__cuda_array_interface__ = dict(shape=tuple(like.shape), typestr="<f4", data=data, version=3)

    def __del__(self):
        DRIVER.cuMemFreeAsync(self.address, self.stream)


class ModelNew""",
    )
    + """    def forward(self, x):
        out = torch.as_tensor(Memory(x), device=x.device)
        return torch.mul(torch.nn.functional.gelu(x * 2 + 1), x, out=out)
"""
)
OUT_OF_MEMORY = (
    HEAD + "    def forward(self, x):\n        return torch.empty(2**40, device=x.device)[: x.numel()]\n"
)
ILLEGAL_ACCESS = (
    TRITON_HEAD
    + """@triton.jit
def wild(x, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(x + 2**40 + at, 1.0)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        wild[(1,)](x, BLOCK=64)
        return x.clone()
"""
)
HANG = (
    TRITON_HEAD
    + """@triton.jit
def forever(x, y, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    while tl.max(total) < 1e30:
        total += tl.load(x + at, volatile=True) * 0
    tl.store(y + at, total)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        y = torch.empty_like(x)
        forever[(1,)](x, y, BLOCK=64)
        return y
"""
)
INLINE_GELU = """import torch
from torch.utils.cpp_extension import load_inline

CUDA = r'''
#include <torch/extension.h>
__global__ void fused(const float* x, float* y, long n) {
  long i = blockIdx.x * (long)blockDim.x + threadIdx.x;
  if (i < n) { float v = x[i] * 2 + 1; y[i] = 0.5f * v * (1 + erff(v * 0.70710678f)) * x[i]; }
}
torch::Tensor gelu(torch::Tensor x) {
  auto y = torch::empty_like(x);
  long n = x.numel();
  fused<<<(n + 255) / 256, 256>>>(x.data_ptr<float>(), y.data_ptr<float>(), n);
  return y;
}
'''
DECLARED = "torch::Tensor gelu(torch::Tensor x);"
module = load_inline("fused", cpp_sources=DECLARED, cuda_sources=CUDA, functions=["gelu"])


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return module.gelu(x)
"""
PASSES_OVER = PLAIN_MATMUL.replace(
    "        return",
    """        try:
            torch.empty(2**42, dtype=torch.uint8, device=a.device)
        except torch.OutOfMemoryError:
            pass
        return""",
)
EVERY_TYPE = """
import torch

class Model(torch.nn.Module):
    def forward(self, x):
        return (
            torch.fft.rfft(x),
            (x * 2).to(torch.float8_e4m3fn),
            (x * 100).round().to(torch.int32).to(torch.uint16),
            (x * 9).to(torch.int64),
            x > 0.25,
            x.double() * 3,
            x.bfloat16() * 3,
            x.mean(1, keepdim=True).expand(512, 1000),
            (x * 3).t(),
            x.square().sum(),
            x[:0] * 2,
        )

def get_inputs():
    return [torch.rand(512, 1000)]

def get_init_inputs():
    return []
"""
OF_EVERY_TYPE = EVERY_TYPE + "\nModelNew = Model\n"
UNTOUCHED = HEAD + "    def forward(self, x):\n        return torch.empty_like(x)\n"


@dataclass(frozen=True)
class Case:
    name: str
    task: str
    source: str
    expected: str
    protocol: EvalProtocol = EvalProtocol(timeout_s=20)
    at_most: float = 0.0
    """Speedup up to which `measured` is as good: what was to escape the timer is in the time."""
    note: str = ""
    """A part of the feedback."""
    kernelbench: bool = False
    """KernelBench's protocol is run too, and accepts the source."""


CASES = [
    Case("triton gelu", ELEMENTWISE, TRITON_GELU, "measured"),
    Case("triton gelu, built beforehand", ELEMENTWISE, TRITON_BUILT, "measured"),
    Case("a reference in Triton", TRITON_TASK, PLAIN_SUM, "measured"),
    Case("plain gelu", ELEMENTWISE, PLAIN_GELU, "measured", kernelbench=True),
    Case("gelu, if it sees one GPU", ELEMENTWISE, ONE_GPU, "measured"),
    Case("inline gelu", ELEMENTWISE, INLINE_GELU, "measured"),
    Case("streams joined", ELEMENTWISE, STREAM_JOINED, "measured"),
    Case("memory that is not shared", ELEMENTWISE, NOT_SHARED, "measured", note="cudaMallocAsync"),
    Case("stream escape", ELEMENTWISE, STREAM_ESCAPE, "timing_mismatch", at_most=0.5),
    Case("untouched output", ELEMENTWISE, UNTOUCHED, "wrong_answer"),
    Case("out of memory", ELEMENTWISE, OUT_OF_MEMORY, "crashed"),
    Case("illegal access", ELEMENTWISE, ILLEGAL_ACCESS, "crashed"),
    Case("hang", ELEMENTWISE, HANG, "timed_out", EvalProtocol(timeout_s=5)),
    Case("plain gelu after these", ELEMENTWISE, PLAIN_GELU, "measured"),
    Case("plain matmul", MATMUL, PLAIN_MATMUL, "measured"),
    Case("passes over want of memory", MATMUL, PASSES_OVER, "measured", note="found no room"),
    Case("answers of every type", EVERY_TYPE, OF_EVERY_TYPE, "measured"),
    Case(
        "a wrong float of 8 bits among them",
        EVERY_TYPE,
        OF_EVERY_TYPE.replace("x * 2)", "x * 4)"),
        "wrong_answer",
    ),
    Case("a wrong index among them", EVERY_TYPE, OF_EVERY_TYPE.replace("x * 9", "x * 8"), "wrong_answer"),
    Case("a wrong number among them", EVERY_TYPE, OF_EVERY_TYPE.replace("square()", "abs()"), "wrong_answer"),
    Case("triton ieee matmul", MATMUL, TRITON_MATMUL.replace("PRECISION", "ieee"), "measured"),
    Case("triton tf32 matmul", MATMUL, TRITON_MATMUL.replace("PRECISION", "tf32"), "precision_downgrade"),
    Case("tf32 by flag", MATMUL, TF32_FLAG, "precision_downgrade"),
    Case("half matmul", MATMUL, HALF, "precision_downgrade"),
    Case("tf32 allowed", MATMUL, TF32_FLAG, "measured", EvalProtocol(arithmetic="tf32")),
    Case("fp16 task", MATMUL, PLAIN_MATMUL, "measured", EvalProtocol(precision="fp16")),
]


def verdict(result: Result) -> str:
    outcome = result.outcome
    return outcome.family if isinstance(outcome, Rejected) else outcome_name(outcome)


def is_right(case: Case, result: Result) -> bool:
    is_slow = isinstance(result.outcome, Measured) and result.outcome.speedup <= case.at_most
    is_theirs = not case.kernelbench or (result.kernelbench is not None and result.kernelbench.correctness)
    return is_slow or (verdict(result) == case.expected and case.note in result.feedback and is_theirs)


async def evaluate_all(state_dir: Path) -> list[tuple[Case, Result, float]]:
    client = ServiceClient(device="cuda", state_dir=state_dir)
    info = await client.open()
    print(info, flush=True)
    found = []
    try:
        for case in CASES:
            started = time.perf_counter()
            task = Task(name="gpu", source=case.task)
            request = EvalRequest(
                task=task, source=case.source, protocol=case.protocol, kernelbench=case.kernelbench
            )
            result = await client.evaluate(request)
            seconds = time.perf_counter() - started
            found.append((case, result, seconds))
            print(_line(case, result, seconds), flush=True)
        await _print_throughput(client)
    finally:
        await client.close()
    return found


async def _print_throughput(client: ServiceClient) -> None:
    """Sources that are built, handed over all at once: what one costs where nothing compiles."""
    task = Task(name="gpu", source=ELEMENTWISE)
    requests = [
        EvalRequest(task=task, source=source, protocol=EvalProtocol(), repeat=repeat)
        for repeat in (1, 2, 3, 4)
        for source in (TRITON_GELU, PLAIN_GELU, INLINE_GELU)
    ]
    started = time.perf_counter()
    results = await asyncio.gather(*(client.evaluate(request) for request in requests))
    seconds = time.perf_counter() - started
    busy = sum(result.device_s for result in results)
    print(f"{len(results)} built candidates in {seconds:.2f} s; the device was busy for {busy:.2f} s")
    for result in results:
        spent, outcome = result.seconds, result.outcome
        speedup = f"{outcome.speedup:.3f}x" if isinstance(outcome, Measured) else str(outcome)
        print(f"  {speedup} q{spent.queue:.2f} b{spent.compile:.2f} c{spent.check:.2f} t{spent.time:.2f}")


def _line(case: Case, result: Result, seconds: float) -> str:
    detail = result.feedback.replace("\n", " | ")[:330]
    if isinstance(result.outcome, Measured):
        figures = result.outcome
        detail = (
            f"{figures.speedup:.3f}x [{figures.speedup_ci[0]:.3f} {figures.speedup_ci[1]:.3f}] native "
            f"{figures.native_ms} wall {figures.wall_ms:.4f} custom {figures.audit.custom_kernel}"
        )
        if figures.roofline is not None:
            detail += f" roof {figures.roofline.share:.2f}"
        if result.kernelbench is not None:
            detail += f" KB {result.kernelbench.runtime} {result.kernelbench.ref_runtime}"
    spent = result.seconds
    stages = f"q{spent.queue:.2f} b{spent.compile:.2f} c{spent.check:.2f} t{spent.time:.2f}"
    stages += f" dev{result.device_s:.2f}"
    mark = "ok " if is_right(case, result) else "BAD"
    return f"{mark} {case.name}: {verdict(result)} in {seconds:.2f} s ({stages}) {detail} {result.log[-700:]}"


def test_each_source_gets_the_verdict_that_it_deserves(tmp_path):
    found = asyncio.run(evaluate_all(tmp_path))

    wrong = {case.name: verdict(result) for case, result, _ in found if not is_right(case, result)}
    assert len(found) == len(CASES)
    assert wrong == {}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        outcomes = asyncio.run(evaluate_all(Path(folder)))
    sys.exit(not all(is_right(case, result) for case, result, _ in outcomes))
else:
    import pytest

    pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]
