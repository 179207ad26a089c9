"""Kernels that were compiled before there was a device, where a candidate's child finds them."""

import json
import os
import types
from pathlib import Path

import pytest
import torch
import torch.cuda._utils as utils
from torch._subclasses import fake_tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from kbopt.core.protocol import Precision
from kbopt.evaluation.worker import build_process
from kbopt.leanbuild import gpu_code

CACHES = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH")


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A candidate's directory in the store, with one kernel as Triton 3 leaves it. It was built elsewhere."""
    for variable in CACHES:
        monkeypatch.setenv(variable, "")
    monkeypatch.setattr(utils, "_nvrtc_compile", utils._nvrtc_compile)
    kernel = tmp_path / "store" / "caches" / "triton" / "6WBDCIX5"
    kernel.mkdir(parents=True)
    names = ("fused.json", "fused.cubin")
    for name in names:
        (kernel / name).write_text(f"what {name} holds")
    paths = {name: f"/gone/staging/caches/triton/6WBDCIX5/{name}" for name in names}
    (kernel / "__grp__fused.json").write_text(json.dumps({"child_paths": paths}))
    return tmp_path / "store"


def test_triton_finds_a_kernel_where_it_is_now_and_not_where_it_was_built(built: Path):
    gpu_code.install(built, "use", "9.0")

    kernel = Path(os.environ["TRITON_CACHE_DIR"]) / "6WBDCIX5"
    assert built not in kernel.parents
    group = json.loads((kernel / "__grp__fused.json").read_text())["child_paths"]
    assert group == {name: str(kernel / name) for name in ("fused.json", "fused.cubin")}
    assert Path(group["fused.cubin"]).read_text() == "what fused.cubin holds"


@pytest.mark.parametrize("text", ["not json", "[]", '{"child_paths": null}', "{}"])
def test_an_index_that_is_not_tritons_is_left_to_triton(built: Path, text: str):
    (built / "caches" / "triton" / "6WBDCIX5" / "__grp__fused.json").write_text(text)

    gpu_code.install(built, "use", "9.0")

    kernel = Path(os.environ["TRITON_CACHE_DIR"]) / "6WBDCIX5"
    assert (kernel / "__grp__fused.json").read_text() == text


def test_tensors_without_memory_make_no_context_on_the_device(monkeypatch: pytest.MonkeyPatch):
    def make_context(device: torch.device) -> None:
        raise AssertionError(f"{device} was touched")

    monkeypatch.setattr(fake_tensor, "init_gpu_context", make_context)

    with gpu_code.ahead_of_device("9.0"):
        mode = _get_current_dispatch_mode()
        on_device = fake_tensor.FakeTensor(mode, torch.empty(3, device="meta"), torch.device("cuda"))
        doubled = torch.empty_like(on_device) * 2

    assert doubled.device == torch.device("cuda:0")
    assert fake_tensor.init_gpu_context is make_context


TASK = """
import torch

def get_inputs():
    return [(torch.rand(5, 4),), 2.0]

def get_init_inputs():
    return [4, 3]
"""
SEES = """
import torch

class ModelNew(torch.nn.Module):
    def __init__(self, n, m):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(n, m), torch.nn.BatchNorm1d(m))
        self.scale = torch.nn.Parameter(torch.rand(m))
        self.register_buffer("shift", torch.arange(m).float())

    def forward(self, both, times):
        (x,) = both
        y = torch.empty(x.shape[0], 3, device=x.device, dtype=x.dtype)
        assert x.is_cuda and type(x) is not torch.Tensor
        seen.extend((str(tensor.device), tensor.dtype) for tensor in (x, *self.parameters(), *self.buffers()))
        return self.eval().layers(x) * times * self.scale + self.shift + y
"""


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_model_with_weights_is_called_as_it_will_be_measured(
    precision: Precision, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """`Module.to` fails for weights without memory: their kernels were compiled on the device's time."""
    monkeypatch.chdir(tmp_path)  # where the task's file is left
    module = types.ModuleType("candidate")
    module.__dict__["seen"] = seen = []
    exec(SEES, module.__dict__)

    with gpu_code.ahead_of_device("9.0"):
        build_process._call_once(module, TASK, precision)

    # The input; two weights each of two layers, and one; of the buffers the number of batches is an integer.
    assert seen.count(("cuda:0", dtype)) == 1 + 4 + 1 + 3
    assert seen.count(("cuda:0", torch.int64)) == 1
    assert len(seen) == 10
