"""Replacements of `torch.utils.cpp_extension.load_inline` and `load` in a candidate's processes.

The same source runs twice. In the *build* child, without the GPU, each call compiles into a directory of this
candidate. In the *measure* child the same call finds the library there and only loads it. `install` replaces
the functions; their names and signatures are torch's. A call with arguments that only torch understands goes
to torch's own implementation, with its files in the same directory.
"""

from __future__ import annotations

import ctypes
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kbopt.leanbuild import gpu_code
from kbopt.leanbuild.builder import Extension, Unit
from kbopt.leanbuild.extensions import Builds, Setup


def install(setup: Setup) -> None:
    """Replace torch's functions in this process and point all compiler caches at the candidate's directory.

    Call it before any candidate code runs. It imports torch and creates no CUDA context.
    """
    from torch.utils import cpp_extension

    gpu_code.install(Path(setup.directory), setup.mode, setup.toolchain.arch)
    os.environ["TORCH_EXTENSIONS_DIR"] = str(Path(setup.directory) / "torch_extensions")
    if setup.toolchain.arch:
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", f"{setup.toolchain.arch}+PTX")
    if setup.bridge:
        ctypes.CDLL(setup.bridge)
    loader = Loader(
        Builds(setup).obtain,
        original_inline=cpp_extension.load_inline,
        original_load=cpp_extension.load,
    )
    cpp_extension.load_inline = loader.load_inline
    cpp_extension.load = loader.load


class Loader:
    """Functions with torch's signatures. `obtain` builds or finds the extension and returns its module.

    `build_directory`, `keep_intermediates` and `use_pch` are ignored: builds lie in the candidate's
    directory, object files are never kept, and lean headers replace precompiled ones.
    """

    def __init__(
        self,
        obtain: Callable[[Extension], Any],
        *,
        original_inline: Callable[..., Any],
        original_load: Callable[..., Any],
    ) -> None:
        self._obtain = obtain
        self._original_inline = original_inline
        self._original_load = original_load

    def load_inline(
        self,
        name: str,
        cpp_sources: str | Sequence[str],
        cuda_sources: str | Sequence[str] | None = None,
        *positional: Any,
        functions: Any = None,
        extra_cflags: Sequence[str] | None = None,
        extra_cuda_cflags: Sequence[str] | None = None,
        extra_ldflags: Sequence[str] | None = None,
        extra_include_paths: Sequence[str] | None = None,
        build_directory: str | None = None,
        verbose: bool = False,
        with_cuda: bool | None = None,
        is_python_module: bool = True,
        with_pytorch_error_handling: bool = True,
        keep_intermediates: bool = True,
        use_pch: bool = False,
        no_implicit_headers: bool = False,
        **unknown: Any,
    ) -> Any:
        """Do what `torch.utils.cpp_extension.load_inline` does."""
        if positional or any(value for value in unknown.values()):
            return self._original_inline(
                name,
                cpp_sources,
                cuda_sources,
                *positional,
                **unknown,
                functions=functions,
                extra_cflags=extra_cflags,
                extra_cuda_cflags=extra_cuda_cflags,
                extra_ldflags=extra_ldflags,
                extra_include_paths=extra_include_paths,
                verbose=verbose,
                with_cuda=with_cuda,
                is_python_module=is_python_module,
                no_implicit_headers=no_implicit_headers,
            )
        implicit = not no_implicit_headers
        units = [_unit("main.cpp", _texts(cpp_sources), is_cuda=False, implicit=implicit)]
        if cuda_sources:
            units.append(_unit("cuda.cu", _texts(cuda_sources), is_cuda=True, implicit=implicit))
        extension = Extension(
            name=name,
            units=tuple(units),
            functions=_functions(functions),
            cflags=_flags(extra_cflags),
            cuda_cflags=_flags(extra_cuda_cflags),
            ldflags=_flags(extra_ldflags),
            include_paths=tuple(extra_include_paths or ()),
            with_cuda=bool(cuda_sources) if with_cuda is None else with_cuda,
            is_python_module=is_python_module,
            with_torch_errors=with_pytorch_error_handling,
        )
        return self._obtain(extension)

    def load(
        self,
        name: str,
        sources: str | Sequence[str],
        extra_cflags: Sequence[str] | None = None,
        extra_cuda_cflags: Sequence[str] | None = None,
        *positional: Any,
        extra_ldflags: Sequence[str] | None = None,
        extra_include_paths: Sequence[str] | None = None,
        build_directory: str | None = None,
        verbose: bool = False,
        with_cuda: bool | None = None,
        is_python_module: bool = True,
        is_standalone: bool = False,
        keep_intermediates: bool = True,
        **unknown: Any,
    ) -> Any:
        """Do what `torch.utils.cpp_extension.load` does."""
        if positional or is_standalone or any(value for value in unknown.values()):
            return self._original_load(
                name,
                sources,
                extra_cflags,
                extra_cuda_cflags,
                *positional,
                **unknown,
                extra_ldflags=extra_ldflags,
                extra_include_paths=extra_include_paths,
                verbose=verbose,
                with_cuda=with_cuda,
                is_python_module=is_python_module,
                is_standalone=is_standalone,
            )
        paths = [Path(path).resolve() for path in _texts(sources)]
        units = tuple(
            Unit(
                file_name=f"{number}_{path.name}",
                text=f'#line 1 "{path.name}"\n{path.read_text()}',
                is_cuda=path.suffix in (".cu", ".cuh"),
                implicit=False,
                folder=str(path.parent),
            )
            for number, path in enumerate(paths)
        )
        extension = Extension(
            name=name,
            units=units,
            functions=None,
            cflags=_flags(extra_cflags),
            cuda_cflags=_flags(extra_cuda_cflags),
            ldflags=_flags(extra_ldflags),
            include_paths=tuple(extra_include_paths or ()),
            with_cuda=any(unit.is_cuda for unit in units) if with_cuda is None else with_cuda,
            is_python_module=is_python_module,
        )
        return self._obtain(extension)


def _unit(file_name: str, texts: Sequence[str], *, is_cuda: bool, implicit: bool) -> Unit:
    # With `#line` the compiler counts lines within each of the author's strings.
    label = "cuda_sources" if is_cuda else "cpp_sources"
    numbered = (f'#line 1 "{label}[{number}]"\n{text}' for number, text in enumerate(texts))
    return Unit(file_name=file_name, text="\n".join(numbered), is_cuda=is_cuda, implicit=implicit)


def _texts(sources: str | Sequence[str]) -> list[str]:
    return [sources] if isinstance(sources, (str, os.PathLike)) else [str(source) for source in sources]


def _flags(flags: Sequence[str] | None) -> tuple[str, ...]:
    # torch's build runs in a shell, which splits words: "-O3 -lineinfo" is two flags, "" is none.
    return tuple(word for flag in flags or () for word in shlex.split(flag))


def _functions(functions: Any) -> Mapping[str, str] | None:
    if functions is None:
        return None
    if isinstance(functions, str):
        functions = [functions]
    if isinstance(functions, list):
        return {name: name for name in functions}
    if isinstance(functions, dict):
        return functions
    raise ValueError(f"Expected 'functions' to be a list or dict, but was {type(functions)}")
