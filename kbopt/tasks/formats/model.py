"""What every format comes to: a reference with workloads, of which each makes one task."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbopt.core.errors import UserError
from kbopt.core.sources import read_source
from kbopt.core.task import Task
from kbopt.tasks.source import family_of

_LFS_POINTER = "version https://git-lfs"
MAX_FILE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Sizes and inputs that a reference is judged on.

    `name` tells it from the others of its file, `text` gives its sizes (`M=32 N=64`), and `where` is the
    place of its definition, such as `workload.jsonl:3`. `values` is what stands there, as the format has it.
    """

    name: str
    text: str
    where: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatTask:
    """A reference in one of the field's formats, with its workloads in the order of their file.

    `path` is the file or folder as the user names it. `make_source` gives the source in KernelBench's format
    for one workload; it raises `UserError` where that workload cannot be resolved.
    """

    path: str
    format: str
    title: str
    workloads: tuple[Workload, ...]
    make_source: Callable[[Workload], str]

    def name(self, workload: Workload) -> str:
        return f"{self.path}#{workload.name}"

    def task(self, workload: Workload) -> Task:
        source = self.make_source(workload)
        return Task(name=self.name(workload), source=source, family=family_of(source))


def fault(where: object, what: str, remedy: str) -> UserError:
    """The error for a file that is not as its format asks: `where` names the file, and the line or field."""
    return UserError(f"{where}: {what}. {remedy}")


def text_of(path: Path, errors: str = "strict") -> str:
    """The text of a file of a format. Raises `UserError` where it is absent, too large or no text.

    `errors` says what becomes of bytes that are no UTF-8, as for `bytes.decode`.
    """
    try:
        size = path.stat().st_size
        if not path.is_file() and not path.is_dir():  # Of a pipe the end may never come.
            raise fault(path, "no regular file", "Copy its text into one")
        if size > MAX_FILE_BYTES:
            raise fault(
                path,
                f"{size / 2**20:.0f} MiB, and kbopt reads up to {MAX_FILE_BYTES // 2**20} MiB",
                "Leave the workloads that are to be judged in a smaller file",
            )
        text = (
            read_source(path) if path.suffix == ".py" else path.read_text(encoding="utf-8-sig", errors=errors)
        )
    except OSError as error:
        raise fault(
            path, f"cannot be read, {error.strerror}", f"The format needs {path.name} in {path.parent}"
        ) from None
    except ValueError as error:
        raise fault(path, f"cannot be read, {error}", "Save it as UTF-8") from None
    if text.startswith(_LFS_POINTER):
        raise fault(path, "a pointer of Git LFS, not the file", "Run `git lfs pull` in its checkout")
    return text


def json_object(text: str, where: object, remedy: str) -> dict[str, Any]:
    """The JSON object that `text` is. Raises `UserError` for other text; `remedy` ends its message."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise fault(where, f"no JSON, {error}", remedy) from None
    if not isinstance(value, dict):
        raise fault(where, f"{kind_of(value)} instead of an object", remedy)
    return value


def kind_of(value: object) -> str:
    """What a value of JSON or YAML is, in words."""
    match value:
        case None:
            return "nothing"
        case dict():
            return "an object"
        case list():
            return "a list"
        case str():
            return "text"
    return type(value).__name__


def seen_in(raw: Mapping[str, Any], field: str) -> str:
    """What stands in the field, for a message that it may not."""
    if field not in raw:
        return "this field is missing"
    return f"{raw[field]!r:.60}"


def title_in(text: object, other: str) -> str:
    """The first line of a description that says something, else `other`."""
    lines = text.split("\n") if isinstance(text, str) else []
    return next((" ".join(line.split()) for line in lines if line.strip()), other)
