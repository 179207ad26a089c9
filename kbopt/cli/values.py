"""What the command line's options and arguments take: names, devices, folders of runs, files."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any, get_args

import click

from kbopt.config import ALL_GPUS
from kbopt.core.errors import unknown_name

_MOST_GPUS = 64
"""Of one evaluator: what a machine or an account of Modal may have."""


_LONGEST_NAME = 100
"""Bytes; file systems take 255, and parts of the name are in other names."""


class Name(click.ParamType[str]):
    """One of a fixed set of names; a wrong one is answered with the nearest."""

    def __init__(self, kind: str, allowed: object) -> None:
        self.name = kind
        self.allowed = tuple(str(name) for name in get_args(allowed))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.allowed:
            self.fail(str(unknown_name(self.name, str(value), self.allowed)), param, ctx)
        return str(value)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "|".join(self.allowed)


class Number(click.FloatRange):
    """A finite number within bounds: `nan` and `inf`, which float() reads too, bound nothing."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"{value} is no finite number.", param, ctx)
        return found


class Device(click.ParamType[str]):
    """A device of the local backend, by its form; whether it is there shows when it is opened."""

    name = "device"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "auto|cpu|cuda|cuda:N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
            self.fail(f"unknown device {value!r}. Allowed: auto, cpu, cuda, cuda:0, cuda:1, ...", param, ctx)
        return str(value)


class GpuCount(click.ParamType[int]):
    """A number, or `all`, which is `ALL_GPUS` until it is known on which machine."""

    name = "gpus"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == "all":
            return ALL_GPUS
        if not str(value).isdecimal() or not 1 <= int(value) <= _MOST_GPUS:
            self.fail(f"{value!r}: give a number from 1 to {_MOST_GPUS}, or all", param, ctx)
        return int(value)


class RunFolder(click.ParamType[Path]):
    """The folder of a run, by its path or by its name in runs/ or sweeps/."""

    name = "RUN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        places = (Path(value), Path("runs") / value, Path("sweeps") / value)
        return next((path for path in places if (path / "journal.sqlite").is_file()), Path(value))


class FolderName(click.ParamType[str]):
    """The name of a folder that a command makes in another one: no path, which would lead out of it."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value or value in (".", "..") or "/" in value or len(os.fsencode(value)) > _LONGEST_NAME:
            self.fail(
                f"{value[:60]!r} is no name. Give one of 1 to {_LONGEST_NAME} bytes, without a slash; --out "
                "says in which folder.",
                param,
                ctx,
            )
        return str(value)


class OutFile(click.ParamType[Path]):
    """A file that can be written: its folder is there."""

    name = "FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(value)
        if path.is_dir():
            self.fail(f"{path} is a folder. Give the name of a file.", param, ctx)
        if not path.parent.is_dir():
            self.fail(
                f"{path.parent} is no folder. Make it first, or give a file in one that exists.", param, ctx
            )
        where = path if path.exists() else path.parent
        if not os.access(where, os.W_OK, effective_ids=True):
            self.fail(f"{where} may not be written to. Give a file in a folder of yours.", param, ctx)
        return path


class Kernels(click.ParamType[tuple[Path, ...]]):
    """One or more files, with commas between them."""

    name = "FILE[,FILE...]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Path, ...]:
        if isinstance(value, tuple):
            return value
        found = tuple(Path(part.strip()) for part in value.split(",") if part.strip())
        if not found:
            self.fail(f"{value!r} names no file. Give one or more, with commas between them.", param, ctx)
        return found


def sweep_folder(name: str, out: Path) -> Path:
    """The folder of the sweep `name`: a path to one, else its place in `out`."""
    given = Path(name)
    return given if (given / "sweep.json").is_file() else out / name
