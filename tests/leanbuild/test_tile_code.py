"""Kernels of TileLang and CuTe DSL are compiled for a device that is not there."""

import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from kbopt.leanbuild import gpu_code, tile_code


class Param:
    """An argument of a kernel, as TileLang describes it."""

    def __init__(self, *shape: object, dtype: torch.dtype = torch.float32) -> None:
        self.shape, self._dtype = shape, dtype

    def torch_dtype(self) -> torch.dtype:
        return self._dtype


@pytest.mark.parametrize(
    ("arch", "name"), [("8.0", "sm_80"), ("8.9", "sm_89"), ("9.0", "sm_90a"), ("10.0", "sm_100a")]
)
def test_newer_devices_have_all_their_features(arch: str, name: str) -> None:
    assert tile_code.architecture(arch) == name


@pytest.mark.parametrize("mode", ["build", "use"])
def test_both_compilers_are_told_the_device_and_the_cache_moves(
    mode: gpu_code.Mode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch.cuda._utils as utils

    for name in ("_nvrtc_compile",):
        monkeypatch.setattr(utils, name, getattr(utils, name))
    monkeypatch.setattr(torch.cuda, "_compile_kernel", torch.cuda._compile_kernel)
    for name in ("TILELANG_CACHE_DIR", "TILELANG_DEFAULT_TARGET", "CUTE_DSL_ARCH", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.setenv("CUDA_CACHE_PATH", "")
    kernel = tmp_path / "caches" / "tilelang" / "kernel.so"
    kernel.parent.mkdir(parents=True)
    kernel.write_text("built")

    gpu_code.install(tmp_path, mode, "9.0")

    cache = Path(os.environ["TILELANG_CACHE_DIR"])
    assert (cache / "kernel.so").read_text() == "built"
    assert (cache == kernel.parent) == (mode == "build")
    assert json.loads(os.environ["TILELANG_DEFAULT_TARGET"]) == {"kind": "cuda", "arch": "sm_90a"}
    assert os.environ["CUTE_DSL_ARCH"] == "sm_90a"


def test_a_kernel_that_allocates_its_outputs_returns_some_of_their_shape() -> None:
    params = [Param("m", 64), Param(64, "n", dtype=torch.bfloat16), Param("m", "n", dtype=torch.bfloat16)]
    a, b = torch.empty(5, 64), torch.empty(64, 7, dtype=torch.bfloat16)

    made = tile_code.outputs(params, [-1], (a, b))

    assert (made.shape, made.dtype) == ((5, 7), torch.bfloat16)
    two = tile_code.outputs([Param(3), Param(4), Param("m")], [0, 1], (torch.empty(2),))
    assert [one.shape for one in two] == [(3,), (4,)]
    assert tile_code.outputs(params, [], (a, b, b)) is None


def test_without_launch_kernels_do_not_run_and_do_so_again_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class JITKernel:
        params, out_idx = (Param(2),), (0,)

        def __call__(self, *inputs: Any) -> Any:
            raise RuntimeError("there is no device")

    for name in ("tilelang", "tilelang.jit", "tilelang.jit.kernel"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["tilelang.jit.kernel"].JITKernel = JITKernel  # type: ignore[attr-defined]

    with tile_code.without_launch():
        assert JITKernel()().shape == (2,)
    with pytest.raises(RuntimeError, match="no device"):
        JITKernel()()
