"""JSON lines of kernels: `kernel`, `source` or `file`, with `reference` or `task`, and perhaps a claim."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kbopt.core.errors import UserError
from kbopt.core.sources import read_source
from kbopt.core.task import Task
from kbopt.tasks.formats.model import fault
from kbopt.tasks.published.model import Broken, Empty, Entry, Tasks, claim_of, json_lines, published

KERNELS = ("kernel", "source", "file")
FIELDS = (
    "an object with kernel, source or file, with reference or task, and perhaps id or name, claim or speedup"
)


def is_line(value: dict[str, Any]) -> bool:
    """Whether the object is a kernel of this format."""
    return any(name in value for name in KERNELS) and ("task" in value or "reference" in value)


def read(path: Path, tasks: Tasks) -> Iterator[Entry]:
    """The entries of a file, or of all `.jsonl` files of a folder, where an unreadable one is an entry."""
    if not path.is_dir():
        yield from _read(path, tasks)
        return
    for file in sorted(path.glob("*.jsonl")):
        try:
            yield from _read(file, tasks)
        except UserError as error:
            yield Broken(name=file.name, where=str(file), reason=str(error))


def _read(file: Path, tasks: Tasks) -> Iterator[Entry]:
    for where, value in json_lines(file):
        name = where
        try:
            if isinstance(value, UserError):
                raise value
            name = str(value.get("id", value.get("name", where)))
            yield _entry(value, name, where, file.parent, tasks)
        except UserError as error:
            yield Broken(name=name, where=where, reason=str(error))


def _entry(value: dict[str, Any], name: str, where: str, folder: Path, tasks: Tasks) -> Entry:
    found = [field for field in KERNELS if field in value]
    if not found:
        told = ", ".join(sorted(value)) or "no field"
        raise fault(where, f"no kernel among {told}", f"It is {FIELDS}")
    if value[found[0]] is None:
        return Empty(name=name, where=where)
    task = _task(value, name, where, folder, tasks)
    claim = claim_of(value.get("claim", value.get("speedup")), where, str(value.get("device", "")))
    if found[0] != "file":
        return published(name, where, task, value[found[0]], claim, own_reference="reference" in value)
    file = folder / str(value["file"])
    text = _text(file, folder, where)
    own = "reference" in value
    return published(name, str(file), task, text, claim, file=file.name, own_reference=own)


def _task(value: dict[str, Any], name: str, where: str, folder: Path, tasks: Tasks) -> Task:
    if "reference" in value:
        return tasks.of_text(value["reference"], str(value.get("task", name)), where)
    if "task" not in value:
        raise fault(where, "no reference and no task", f"It is {FIELDS}")
    named = str(value["task"])
    beside = folder / named.partition("#")[0]
    return tasks.named(str(folder / named) if beside.exists() else named)


def _text(file: Path, folder: Path, where: str) -> str:
    """The file's text. A set may name files of its own folder alone: others could be anybody's."""
    if not file.resolve().is_relative_to(folder.resolve()):
        raise fault(where, f"the file {file} is outside of {folder}", "Put it in there")
    if file.exists() and not file.is_file():  # Of a pipe the end may never come.
        raise fault(where, f"{file} is no regular file", "Copy its text into one")
    try:
        return read_source(file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise fault(where, f"cannot read {file}, {reason}", "Put it there") from None
