"""The extensions of one candidate: built in its directory, found there later, loaded."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import json
import secrets
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from kbopt.leanbuild import builder, scan
from kbopt.leanbuild.builder import Extension
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
