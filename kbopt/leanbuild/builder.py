"""Compiles one extension, with lean headers first and with torch's own headers if those fail.

There are three sets of headers. The last one is torch's, so that no candidate fails because of ours:

- `slim`: kbopt's own `torch::Tensor` over the bridge. No header of torch is read.
- `core`: torch's Tensor from ATen's core headers, and the operators that the source names.
- `full`: the same commands as torch's `load_inline`, with pybind11.

The machine code of kernels is the same with all three, because the headers do not change the device code of
kernels that take pointers and numbers. `benchmarks/lean_headers.py` compares it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kbopt.leanbuild import scan
from kbopt.leanbuild.bridge import HEADERS
from kbopt.leanbuild.compilers import run_side_by_side
from kbopt.leanbuild.toolchain import NVCC_FLAGS, Toolchain

Tier = Literal["slim", "core", "full"]
TIERS: tuple[Tier, ...] = ("slim", "core", "full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One file to compile. `implicit` says that torch puts its own includes before `text`."""

    file_name: str
    text: str
    is_cuda: bool
    implicit: bool
    folder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """The arguments of a call of `load_inline` or `load`.

    `functions` maps the names of functions to bind to their docstrings. It is None if the source has its own
    bindings.
    """

    name: str
    units: tuple[Unit, ...]
    functions: Mapping[str, str] | None
    cflags: tuple[str, ...] = ()
    cuda_cflags: tuple[str, ...] = ()
    ldflags: tuple[str, ...] = ()
    include_paths: tuple[str, ...] = ()
    with_cuda: bool = False
    is_python_module: bool = True
    with_torch_errors: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt with one set of headers. `log` is the compilers' output."""

    tier: Tier
    ok: bool
    log: str
    seconds: float


def tiers_to_try(extension: Extension, *, has_bridge: bool) -> tuple[Tier, ...]:
    """Return the sets of headers to try for `extension`, the fastest first. The last is always `full`."""
    text = "\n".join(unit.text for unit in extension.units)
    if not has_bridge or not extension.is_python_module or scan.needs_full_headers(text):
        return ("full",)
    return ("core", "full") if scan.uses_pybind(text) else TIERS


def build(
    extension: Extension, directory: Path, toolchain: Toolchain, *, bridge: Path | None
) -> tuple[Attempt, ...]:
    """Compile `extension` to `directory / <name>.so`. Return the attempts; the last one is the result.

    If the last attempt failed, it was with torch's own headers, so the extension does not compile in torch
    either.
    """
    attempts: list[Attempt] = []
    for tier in tiers_to_try(extension, has_bridge=bridge is not None):
        if tier == "core" and attempts and not scan.blames_torch(attempts[-1].log):
            continue
        started = time.monotonic()
        ok, log = _attempt(extension, directory / tier, toolchain, tier, bridge)
        attempts.append(Attempt(tier=tier, ok=ok, log=log, seconds=time.monotonic() - started))
        if ok:
            (directory / tier / f"{extension.name}.so").rename(directory / f"{extension.name}.so")
            break
    return tuple(attempts)


def _attempt(
    extension: Extension, directory: Path, toolchain: Toolchain, tier: Tier, bridge: Path | None
) -> tuple[bool, str]:
    directory.mkdir(parents=True)
    commands = compile_commands(extension, directory, toolchain, tier)
    ok, log = run_side_by_side(commands, directory)
    if not ok:
        return False, log
    linked, link_log = run_side_by_side(
        [_link_command(extension, directory, toolchain, tier, bridge)], directory
    )
    return linked, log + link_log


def compile_commands(
    extension: Extension, directory: Path, toolchain: Toolchain, tier: Tier
) -> list[list[str]]:
    """Write the sources of `tier` into `directory`. Return one compiler command for each."""
    if tier == "core":
        text = "\n".join(unit.text for unit in extension.units)
        headers = scan.operators(text, Path(toolchain.torch_includes[0]))
        (directory / "kbopt_operators.h").write_text("".join(f"#include <{name}>\n" for name in headers))
    commands = []
    for number, unit in enumerate(extension.units):
        path = directory / unit.file_name
        binds = number == 0 and extension.functions is not None
        path.write_text(_translation_unit(extension, unit, tier, binds=binds))
        compile_one = _nvcc_command if unit.is_cuda else _cxx_command
        commands.append(
            [*compile_one(extension, unit, directory, toolchain, tier), "-c", str(path), "-o", f"{path}.o"]
        )
    return commands


def _translation_unit(extension: Extension, unit: Unit, tier: Tier, *, binds: bool) -> str:
    parts = []
    if unit.implicit and unit.is_cuda:
        parts += ["#include <torch/types.h>", "#include <cuda.h>", "#include <cuda_runtime.h>"]
    elif unit.implicit or (binds and tier != "full"):
        parts += ["#include <torch/extension.h>"]
    parts += [unit.text]
    if binds and extension.functions is not None:
        parts += ["PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {"]
        for name, doc in extension.functions.items():
            parts += [f'm.{_definition(extension, name, tier)}, "{doc}");']
        parts += ["}"]
    return "\n".join(parts) + "\n"


def _definition(extension: Extension, name: str, tier: Tier) -> str:
    if not extension.with_torch_errors:
        return f'def("{name}", {name}'
    if tier == "full" or _binds_with_pybind(extension):
        return f'def("{name}", torch::wrap_pybind_function({name})'
    return f'def_with_torch_errors("{name}", {name}'


def _binds_with_pybind(extension: Extension) -> bool:
    return any(scan.uses_pybind(unit.text) for unit in extension.units)


def _common_flags(
    extension: Extension, unit: Unit, directory: Path, toolchain: Toolchain, tier: Tier
) -> list[str]:
    flags = [f"-DTORCH_EXTENSION_NAME={extension.name}", "-DTORCH_API_INCLUDE_EXTENSION_H"]
    if unit.folder:
        flags.append(f"-I{unit.folder}")
    flags += [f"-I{Path(path).resolve()}" for path in extension.include_paths]
    system = list(toolchain.torch_includes)
    if extension.with_cuda:
        system.append(str(toolchain.cuda_home / "include"))
    system.append(toolchain.python_include)
    if tier == "slim":
        system = [str(HEADERS / "slim"), str(HEADERS), *system]
        if scan.uses_reduced_types(unit.text):
            flags.append("-DKBOPT_REDUCED_TYPES")
        for header in (
            *scan.standard_headers(unit.text),
            *(scan.cuda_headers(unit.text) if unit.is_cuda else ()),
        ):
            flags += ["-include", header]
    elif tier == "core":
        system = [str(HEADERS / "core"), str(HEADERS), str(directory), *system]
        flags.append("-DKBOPT_OPERATORS=<kbopt_operators.h>")
        if scan.uses_pybind(unit.text) or (_binds_with_pybind(extension) and not unit.is_cuda):
            flags.append("-DKBOPT_PYBIND")
    for include in system:
        flags += ["-isystem", include]
    return flags


def _cxx_command(
    extension: Extension, unit: Unit, directory: Path, toolchain: Toolchain, tier: Tier
) -> list[str]:
    common = _common_flags(extension, unit, directory, toolchain, tier)
    return [toolchain.cxx, *common, "-fPIC", f"-std={toolchain.cxx_standard}", *extension.cflags]


def _nvcc_command(
    extension: Extension, unit: Unit, directory: Path, toolchain: Toolchain, tier: Tier
) -> list[str]:
    common = _common_flags(extension, unit, directory, toolchain, tier)
    flags = [*common, *NVCC_FLAGS, *_arch_flags(extension.cuda_cflags), "--compiler-options", "-fPIC"]
    flags += extension.cuda_cflags
    if not any(flag.startswith("-std=") for flag in flags):
        flags.append(f"-std={toolchain.cxx_standard}")
    return [toolchain.nvcc, *flags]


def _arch_flags(cuda_cflags: Sequence[str]) -> list[str]:
    """Return torch's architecture flags, from TORCH_CUDA_ARCH_LIST and the candidate's own flags."""
    from torch.utils.cpp_extension import _get_cuda_arch_flags

    return list(_get_cuda_arch_flags(list(cuda_cflags)))


def _link_command(
    extension: Extension, directory: Path, toolchain: Toolchain, tier: Tier, bridge: Path | None
) -> list[str]:
    objects = [str(directory / f"{unit.file_name}.o") for unit in extension.units]
    flags = [*extension.ldflags]
    if tier != "full" and bridge is not None:
        flags.append(str(bridge))
    if tier != "slim":
        cuda = extension.with_cuda
        flags += [f"-L{Path(toolchain.torch_dir) / 'lib'}", "-lc10", *(["-lc10_cuda"] if cuda else [])]
        flags += ["-ltorch_cpu", *(["-ltorch_cuda"] if cuda else []), "-ltorch", "-ltorch_python"]
    if extension.with_cuda:
        flags += [f"-L{toolchain.cuda_libraries}", "-lcudart"]
    return [toolchain.cxx, *objects, "-shared", *flags, "-o", str(directory / f"{extension.name}.so")]
