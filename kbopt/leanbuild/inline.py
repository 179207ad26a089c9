"""What stands in for `torch.utils.cpp_extension.load_inline` and `load` inside a candidate's processes.

The same source is executed twice: in the *build* child, without the GPU, where each call compiles into
a directory private to this candidate, and in the *measure* child, where the same call finds the library
there and only loads it. `install` puts the functions in place; the candidate sees torch's own names and
signatures. Calls with arguments that torch alone understands go to torch's own implementation, with its
files in the same directory.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from kbopt.leanbuild import builder, gpu_code, scan
from kbopt.leanbuild.builder import Extension, Unit
from kbopt.leanbuild.gpu_code import Mode
from kbopt.leanbuild.toolchain import Toolchain

BUILD_FAILED = "Error building extension"
"""How torch begins the message of such an error."""


class NotBuilt(RuntimeError):
    """The measure child asked for a build that the build child never saw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a child must be told to compile, or to find what was compiled.

    `directory` holds this candidate's builds: writable in mode `build`, read-only in mode `use`.
    `bridge` is the path that `ensure_bridge` returned, empty to compile with torch's own headers only.
    """

    mode: Mode
    directory: str
    toolchain: Toolchain
    bridge: str = ""

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> Setup:
        fields = json.loads(text)
        return cls(**{**fields, "toolchain": Toolchain(**fields["toolchain"])})


def install(setup: Setup) -> None:
    """Replaces torch's functions in this process and points every compiler cache at the directory.

    To be called before any candidate code runs. Imports torch, creates no CUDA context.
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
    """Functions with torch's signatures; `obtain` gets what was asked for and returns the module.

    `build_directory`, `keep_intermediates` and `use_pch` are accepted and mean nothing here: the build
    lives in the candidate's directory, objects are never kept, and lean headers replace precompiled ones.
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
        """As `torch.utils.cpp_extension.load_inline`."""
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
        """As `torch.utils.cpp_extension.load`."""
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


_failed_for_now: list[str] = []
"""Extensions of this process that something from outside may make possible: see `is_whole`."""


def is_whole() -> bool:
    """Whether all that failed to build in this process would fail again."""
    return not _failed_for_now


def is_lasting(error: BaseException) -> bool:
    """Whether `error` is a compiler's complaint of the source."""
    return isinstance(error, RuntimeError) and getattr(error, "blames_source", False) is True


def _failure(name: str, log: str) -> RuntimeError:
    """As torch raises it."""
    error = RuntimeError(f"{BUILD_FAILED} '{name}': {log}")
    if scan.blames_source(log):
        error.blames_source = True  # type: ignore[attr-defined]
    else:
        _failed_for_now.append(name)
    return error


class Builds:
    """The extensions in one candidate's directory."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    def obtain(self, extension: Extension) -> Any:
        """The loaded extension; built first in mode `build`.

        Raises RuntimeError with the compiler's words, as torch does, and `NotBuilt` in mode `use`.
        """
        home = Path(self._setup.directory) / _key(extension)
        if not (home / "build.json").is_file():
            if self._setup.mode == "use":
                raise NotBuilt(
                    f"the extension {extension.name!r} was not built before the measurement. Call "
                    "load_inline when the module is imported or the model is constructed, with a source that "
                    "is the same each time"
                )
            self._build(extension, home)
        record = json.loads((home / "build.json").read_text())
        if not record["ok"]:
            raise _failure(extension.name, record["log"])
        return _load_library(extension, home / f"{extension.name}.so")

    def _build(self, extension: Extension, home: Path) -> None:
        """Compiles into a directory beside `home` and renames it, so that `home` is whole or absent."""
        private = home.with_name(f"{home.name}.{secrets.token_hex(4)}")
        started = time.monotonic()
        bridge = Path(self._setup.bridge) if self._setup.bridge else None
        attempts = builder.build(extension, private, self._setup.toolchain, bridge=bridge)
        last = attempts[-1]
        for attempt in attempts:
            shutil.rmtree(private / attempt.tier)
        record = {
            "name": extension.name,
            "ok": last.ok,
            "tier": last.tier,
            "log": last.log,
            "seconds": time.monotonic() - started,
            "attempts": {attempt.tier: attempt.seconds for attempt in attempts},
        }
        (private / "build.json").write_text(json.dumps(record))
        try:
            private.rename(home)
        except OSError:
            # Another thread of this candidate finished the same build first.
            shutil.rmtree(private)
            if not home.is_dir():
                raise


def num_builds(directory: Path) -> int:
    """How many extensions lie in a candidate's directory."""
    return len(list(directory.glob("*/build.json")))


def build_records(directory: Path) -> list[dict[str, Any]]:
    """The `build.json` of every extension under a candidate's directory, in no particular order.

    A candidate can write these files too: they are hints for feedback and statistics, not evidence.
    """
    return [json.loads(path.read_text()) for path in directory.glob("*/build.json")]


def _key(extension: Extension) -> str:
    return hashlib.sha256(json.dumps(asdict(extension), sort_keys=True).encode()).hexdigest()[:32]


def _load_library(extension: Extension, path: Path) -> Any:
    if not extension.is_python_module:
        import torch

        torch.ops.load_library(str(path))
        return str(path)
    return _import_extension(extension.name, path)


def _import_extension(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or not isinstance(spec.loader, importlib.machinery.ExtensionFileLoader):
        raise ImportError(f"{path} is no extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _unit(file_name: str, texts: Sequence[str], *, is_cuda: bool, implicit: bool) -> Unit:
    # The compiler then counts lines as the author of the string does.
    label = "cuda_sources" if is_cuda else "cpp_sources"
    numbered = (f'#line 1 "{label}[{number}]"\n{text}' for number, text in enumerate(texts))
    return Unit(file_name=file_name, text="\n".join(numbered), is_cuda=is_cuda, implicit=implicit)


def _texts(sources: str | Sequence[str]) -> list[str]:
    return [sources] if isinstance(sources, (str, os.PathLike)) else [str(source) for source in sources]


def _flags(flags: Sequence[str] | None) -> tuple[str, ...]:
    # Split as the shell does that torch's build runs through: "-O3 -lineinfo" is two flags, "" is none.
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
