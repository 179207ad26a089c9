"""Builds the extensions of one candidate in its directory, and finds and loads them there later."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import json
import re
import secrets
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from kbopt.leanbuild import builder, scan
from kbopt.leanbuild.builder import Extension, Unit
from kbopt.leanbuild.gpu_code import Mode
from kbopt.leanbuild.toolchain import Toolchain

_INCLUDED = re.compile(r'^\s*#\s*include\s*"', re.MULTILINE)
"""An include by a name in quotes, which the folder of the source decides."""
BUILD_FAILED = "Error building extension"
"""The beginning of torch's message for a failed build."""


class NotBuilt(RuntimeError):
    """The measure child asked for an extension that the build child did not build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a child needs in order to build extensions, or to find them.

    `directory` holds this candidate's builds. It is writable in mode `build`; mode `use` does not write to
    it. `bridge` is the path that `ensure_bridge` returned, or "" to compile with torch's own headers only.
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


_failed_for_now: list[str] = []
"""Names of extensions in this process whose build failed because of the machine: see `is_whole`."""


def is_whole() -> bool:
    """Return whether no extension in this process failed for a reason that can go away."""
    return not _failed_for_now


def is_lasting(error: BaseException) -> bool:
    """Return whether `error` is a failed build for which the compiler blames the source."""
    return isinstance(error, RuntimeError) and getattr(error, "blames_source", False) is True


def _failure(name: str, log: str) -> RuntimeError:
    """Return the error that torch raises for a failed build."""
    error = RuntimeError(f"{BUILD_FAILED} '{name}': {log}")
    if scan.blames_source(log):
        error.blames_source = True  # type: ignore[attr-defined]
    else:
        _failed_for_now.append(name)
    return error


class Builds:
    """Builds and loads the extensions in one candidate's directory."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    def obtain(self, extension: Extension) -> Any:
        """Return the loaded extension. In mode `build` build it first if necessary.

        Raises RuntimeError with the compiler's output, as torch does, and NotBuilt in mode `use` if there is
        no build.
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
        """Compile into a directory beside `home` and rename it, so that `home` is complete or absent."""
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
    """Return the number of extensions in a candidate's directory."""
    return len(list(directory.glob("*/build.json")))


def build_records(directory: Path) -> list[dict[str, Any]]:
    """Return the `build.json` of each extension in a candidate's directory, in no particular order.

    A candidate can forge these files. Use them for feedback and statistics only.
    """
    return [json.loads(path.read_text()) for path in directory.glob("*/build.json")]


def _key(extension: Extension) -> str:
    """Return the name of the extension's build: a hash of all that decides it.

    The folder and the name of a source file are left out unless it includes a file beside it. Many candidates
    write their source to a new temporary file in each process.
    """
    units = [
        unit if not unit.folder or _INCLUDED.search(unit.text) else _without_place(unit)
        for unit in extension.units
    ]
    parts = asdict(replace(extension, units=tuple(units)))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _without_place(unit: Unit) -> Unit:
    _, _, text = unit.text.partition("\n")  # The first line names the file, see `inline`.
    return replace(unit, file_name=Path(unit.file_name).suffix, folder="", text=text)


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
