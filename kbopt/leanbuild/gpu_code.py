"""Triton and NVRTC kernels, compiled before there is a device to run them on.

Neither compiles at import: Triton waits for the first launch, to see the arguments. `ahead_of_device`
is a context in which a candidate's constructor and forward run on tensors that have shapes, types and
strides but no memory. A Triton launch then compiles and stops there, for every configuration of an
autotuner; an NVRTC kernel compiles, and calling it does nothing. No kernel runs, so nobody else's
timing is disturbed. What stops such a run (a look at values, a call into a C++ extension) is no
verdict: what it did not reach is compiled later, as if nothing had happened.
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

# `build`: compile and keep, without a device. `use`: take what is there.
Mode = Literal["build", "use"]


def install(directory: Path, mode: Mode, arch: str) -> None:
    """Points Triton's, Inductor's and the driver's caches at the candidate's directory.

    In mode `use` the directory is read-only, and compilers insist on writing: they get a copy in the
    process' temporary directory, small because it holds this candidate's kernels alone.
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
    _remember_nvrtc(home / "nvrtc", mode, arch)


def _move_groups(cache: Path) -> None:
    """Have Triton find a kernel's files where they are now: an index beside them says where they were built,
    and what is missing there is compiled again, while the candidate holds the device.
    """
    for index in cache.glob("*/__grp__*.json"):
        with contextlib.suppress(ValueError):
            group = json.loads(index.read_text())
            if isinstance(group, dict) and isinstance(group.get("child_paths"), dict):
                group["child_paths"] = {name: str(index.parent / name) for name in group["child_paths"]}
                index.write_text(json.dumps(group))


@contextlib.contextmanager
def ahead_of_device(arch: str) -> Iterator[None]:
    """Inside, tensors have no memory and kernels for compute capability `arch` (`9.0`) only compile."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with contextlib.ExitStack() as stack:
        if _has_triton():
            stack.enter_context(_triton_without_launch(arch))
        stack.enter_context(_without_context())
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield


def _has_triton() -> bool:
    import importlib.util

    return importlib.util.find_spec("triton") is not None


@contextlib.contextmanager
def _without_context() -> Iterator[None]:
    """Keep tensors without memory from making a context on the device, beside somebody's timing.

    Torch makes one for what a backward pass would need.
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
    """An argument as Triton specializes on it: a tensor's type and the alignment of its address."""
    import torch
    from triton.runtime.jit import MockTensor

    if not isinstance(value, torch.Tensor):
        return value

    class Aligned(MockTensor):  # type: ignore[misc]
        @staticmethod
        def data_ptr() -> int:
            # torch's allocator aligns to 512 bytes; only an offset into the storage disturbs that.
            return int(value.storage_offset() * value.element_size()) % 16

    return Aligned(value.dtype, list(value.shape))


def _absent_device(arch: str) -> Any:
    """A Triton driver that knows its target and nothing else."""
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia.driver import CudaDriver

    class AbsentDevice(CudaDriver):  # type: ignore[misc]
        def __init__(self) -> None:
            # Not the parent's: that one loads the CUDA driver.
            pass

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int) -> int:
            return 0

        def get_current_target(self) -> Any:
            return GPUTarget("cuda", int(arch.replace(".", "")), 32)

    return AbsentDevice()


def _compile_launcher(kernel: Any) -> None:
    """Compiles the C stubs through which Triton talks to the driver and launches `kernel`.

    They are loaded as well, which fails where there is no libcuda; then they are compiled later.
    """
    from triton.backends.nvidia.driver import CudaLauncher, CudaUtils

    with contextlib.suppress(AssertionError, ImportError, OSError):
        CudaUtils()
        CudaLauncher(kernel.src, kernel.metadata)


def _remember_nvrtc(home: Path, mode: Mode, arch: str) -> None:
    """Makes torch's NVRTC compilation look into `home` first and leave its results there.

    In mode `build` there is no device to load a kernel on: calling one does nothing.
    """
    import torch
    import torch.cuda._utils as utils

    if not hasattr(torch.cuda, "_compile_kernel"):
        return  # torch before 2.8 has no NVRTC interface, hence no candidate that uses it
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
    """`torch.cuda._compile_kernel` without its last step, the loading."""
    import torch.cuda._utils as utils

    utils._nvrtc_compile(kernel_source, kernel_name, compute_capability, cuda_include_dirs, nvcc_options)
    return lambda *_, **__: None
