"""Compiles Triton and NVRTC kernels without a device; those of TileLang by `tile_code`.

Triton compiles a kernel only at its first launch, when it sees the arguments. In the context
`ahead_of_device` a candidate's constructor and forward run on fake tensors, which have shapes, types and
strides but no memory. A Triton launch then only compiles, for each configuration of an autotuner, and a call
of an NVRTC kernel does nothing. No kernel runs, so no other candidate's timing is disturbed. If such a run
fails, because it needs values or calls a C++ extension, that is no verdict: the kernels that it did not reach
are compiled later.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from kbopt.leanbuild import tile_code

Mode = Literal["build", "use"]
"""`build`: compile without a device and keep the results. `use`: load the kept results."""


def install(directory: Path, mode: Mode, arch: str) -> None:
    """Point the caches of Triton, Inductor, TileLang, NVRTC and the CUDA driver at the candidate's directory.

    In mode `use` that directory may be read-only, but the compilers write to their caches. So they get a copy
    in a temporary directory. It is small, because it holds only this candidate's kernels.
    """
    home = directory / "caches"
    if mode == "use":
        private = Path(tempfile.mkdtemp(prefix="kernels-"))
        if home.is_dir():
            shutil.copytree(home, private, dirs_exist_ok=True, copy_function=shutil.copyfile)
            _move_groups(private / "triton")
        home = private
    for variable, name in (
        ("TRITON_CACHE_DIR", "triton"),
        ("TORCHINDUCTOR_CACHE_DIR", "inductor"),
        ("CUDA_CACHE_PATH", "driver"),
    ):
        (home / name).mkdir(parents=True, exist_ok=True)
        os.environ[variable] = str(home / name)
    tile_code.install(home, arch)
    _remember_nvrtc(home / "nvrtc", mode, arch)


def _move_groups(cache: Path) -> None:
    """Correct the paths in Triton's cache after it was copied.

    An index beside a kernel's files has their absolute paths. If they are missing there, Triton compiles the
    kernel again while the candidate holds the device.
    """
    for index in cache.glob("*/__grp__*.json"):
        with contextlib.suppress(ValueError):
            group = json.loads(index.read_text())
            if isinstance(group, dict) and isinstance(group.get("child_paths"), dict):
                group["child_paths"] = {name: str(index.parent / name) for name in group["child_paths"]}
                index.write_text(json.dumps(group))


@contextlib.contextmanager
def ahead_of_device(arch: str) -> Iterator[None]:
    """Within the context tensors have no memory, and kernels are only compiled, for capability `arch`
    (`9.0`).
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    with contextlib.ExitStack() as stack:
        if _has_triton():
            stack.enter_context(_triton_without_launch(arch))
        stack.enter_context(tile_code.without_launch())
        stack.enter_context(_without_context())
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield


def _has_triton() -> bool:
    import importlib.util

    return importlib.util.find_spec("triton") is not None


@contextlib.contextmanager
def _without_context() -> Iterator[None]:
    """Keep fake tensors from creating a CUDA context, which would disturb another candidate's timing.

    torch creates one for a possible backward pass.
    """
    from torch._subclasses import fake_tensor

    make_context = getattr(fake_tensor, "init_gpu_context", None)
    if make_context is None:
        yield
        return
    fake_tensor.init_gpu_context = lambda _device: None
    try:
        yield
    finally:
        fake_tensor.init_gpu_context = make_context


@contextlib.contextmanager
def _triton_without_launch(arch: str) -> Iterator[None]:
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    launch, tune, active = JITFunction.run, Autotuner.run, driver._active

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:  # noqa: ARG001
        standing_in = {name: _stand_in(value) for name, value in kwargs.items()}
        kernel = launch(self, *map(_stand_in, args), grid=grid, warmup=True, **standing_in)
        _compile_launcher(kernel)
        return kernel

    def compile_all(self: Any, *args: Any, warmup: bool = True, **kwargs: Any) -> Any:  # noqa: ARG001
        return self.warmup(*args, **kwargs)

    JITFunction.run = compile_only
    Autotuner.run = compile_all
    driver.set_active(_absent_device(arch))
    try:
        yield
    finally:
        JITFunction.run, Autotuner.run, driver._active = launch, tune, active


def _stand_in(value: Any) -> Any:
    """Return a stand-in for an argument: Triton specializes on its type and on its address's alignment."""
    import torch
    from triton.runtime.jit import MockTensor

    if not isinstance(value, torch.Tensor):
        return value

    class Aligned(MockTensor):  # type: ignore[misc]
        @staticmethod
        def data_ptr() -> int:
            # torch's allocator aligns to 512 bytes, so only the offset in the storage matters.
            return int(value.storage_offset() * value.element_size()) % 16

    return Aligned(value.dtype, list(value.shape))


def _absent_device(arch: str) -> Any:
    """Return a Triton driver that needs no device: it only names the target."""
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia.driver import CudaDriver

    class AbsentDevice(CudaDriver):  # type: ignore[misc]
        def __init__(self) -> None:
            # The parent's constructor is not called: it loads the CUDA driver.
            pass

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int) -> int:
            return 0

        def get_current_target(self) -> Any:
            return GPUTarget("cuda", int(arch.replace(".", "")), 32)

    return AbsentDevice()


def _compile_launcher(kernel: Any) -> None:
    """Compile the C stubs with which Triton calls the CUDA driver and launches `kernel`.

    Triton also loads them. If that fails, because there is no libcuda, they are loaded or compiled later.
    """
    from triton.backends.nvidia.driver import CudaLauncher, CudaUtils

    with contextlib.suppress(AssertionError, ImportError, OSError):
        CudaUtils()
        CudaLauncher(kernel.src, kernel.metadata)


def _remember_nvrtc(home: Path, mode: Mode, arch: str) -> None:
    """Have torch's NVRTC compilation look in `home` first and store its results there.

    In mode `build` there is no device, so a call of a kernel does nothing.
    """
    import torch
    import torch.cuda._utils as utils

    if not hasattr(torch.cuda, "_compile_kernel"):
        return  # torch before 2.8 has no interface to NVRTC.
    compile_now: Callable[..., tuple[bytes, str]] = utils._nvrtc_compile
    home.mkdir(parents=True, exist_ok=True)

    def compile_once(
        kernel_source: str,
        kernel_name: str,
        compute_capability: str | None = None,
        *options: Any,
        **named: Any,
    ) -> tuple[bytes, str]:
        capability = compute_capability or arch.replace(".", "")
        asked = json.dumps([kernel_source, kernel_name, capability, options, named], sort_keys=True)
        stem = home / hashlib.sha256(asked.encode()).hexdigest()
        code, name = stem.with_suffix(".bin"), stem.with_suffix(".name")
        if not name.is_file():
            binary, mangled = compile_now(kernel_source, kernel_name, capability, *options, **named)
            code.write_bytes(binary)
            name.write_text(mangled)
        return code.read_bytes(), name.read_text()

    utils._nvrtc_compile = compile_once
    if mode == "build":
        torch.cuda._compile_kernel = _compile_only


def _compile_only(
    kernel_source: str,
    kernel_name: str,
    compute_capability: str | None = None,
    cuda_include_dirs: list[str] | None = None,
    nvcc_options: list[str] | None = None,
) -> Callable[..., None]:
    """Compile as `torch.cuda._compile_kernel` does, and return a function that does nothing."""
    import torch.cuda._utils as utils

    utils._nvrtc_compile(kernel_source, kernel_name, compute_capability, cuda_include_dirs, nvcc_options)
    return lambda *_, **__: None
