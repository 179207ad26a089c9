"""Folders of KernelBench pairs: a kernel beside its reference, or under the number of its problem.

Among them may be task folders of KernelBench-Hard and GPU MODE, whose kernels are their shipped solutions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kbopt.core.errors import UserError
from kbopt.core.sources import read_source
from kbopt.core.task import Task
from kbopt.tasks.formats.model import fault, json_object, text_of
from kbopt.tasks.published import shipped
from kbopt.tasks.published.model import Broken, Claim, Entry, Tasks, claim_of, published

REFERENCE = "reference.py"
CLAIMS = "claims.json"
_CLAIMS_ARE = 'It is an object of kernels and speedups, such as {"level1/19": 1.5}'
_LEVEL = re.compile(r"(?:^|/)level_?(?P<level>\d+)/(?P<index>\d+)(?:_[^/]*)?\.py$")
_SAMPLE = re.compile(r"(?:^|/)level_(?P<level>\d+)_problem_(?P<index>\d+)_sample_\d+_kernel\.py$")
"""How KernelBench's own runs name the kernels that they generate."""


def files(root: Path) -> list[Path]:
    """The Python files under `root` but for references and what is hidden, in their order.

    Of task folders none is among them; beside such folders only those that are kernels by their place, for
    what the tasks share lies there.
    """
    tasks = set(shipped.task_folders(root))
    return [
        path
        for path in sorted(root.rglob("*.py"))
        if path.name != REFERENCE
        and not any(part.startswith((".", "__")) for part in path.relative_to(root).parts)
        and not tasks & set(path.parents)
        and (not tasks or _is_kernel(path, root))
    ]


def _is_kernel(path: Path, root: Path) -> bool:
    """Whether a file has a reference beside it or a problem's number."""
    return path.with_name(REFERENCE).is_file() or bool(problem_of(path, root))


def is_pairs(root: Path) -> bool:
    """Whether there is a task folder at or under `root`, or a kernel by its place."""
    return bool(shipped.task_folders(root)) or any(_is_kernel(path, root) for path in files(root))


def problem_of(path: Path, root: Path) -> str:
    """The task that a path under `root` stands for, `level1/19` for `level1/19.py`; empty for another."""
    name = f"{root.resolve().name}/{path.relative_to(root).as_posix()}"
    found = _LEVEL.search(name) or _SAMPLE.search(name)
    return f"level{found['level']}/{found['index']}" if found else ""


def read(root: Path, tasks: Tasks) -> Iterator[Entry]:
    """An entry for each kernel under `root`, and one for each reference or task without a kernel.

    `claims.json` in `root` gives speedups by the kernels' names. Raises `UserError` where it is no object.
    """
    stated = _claims(root / CLAIMS)
    kernels = files(root)
    folders = shipped.task_folders(root)
    of_task = {path: folder for folder in folders for path in shipped.solutions(folder)}
    for path in sorted([*kernels, *of_task]):
        name = name_of(path, root)
        try:
            claim = claim_of(stated.get(name), f"{root / CLAIMS}, {name}")
        except UserError as error:
            yield Broken(name=name, where=str(path), reason=str(error))
            continue
        if path in of_task:
            yield shipped.entry(path, name, of_task[path], tasks, claim)
        else:
            yield entry(path, root, tasks, claim)
    yield from shipped.without_solutions(root)
    alone = {path.parent for path in root.rglob(REFERENCE)} - {path.parent for path in kernels} - set(folders)
    for folder in sorted(alone):
        reason = f"{folder} has {REFERENCE} and no kernel. Put a .py file beside it."
        yield Broken(name=name_of(folder, root), where=str(folder), reason=reason)


def name_of(path: Path, root: Path) -> str:
    """The path from `root` without its ending, and without `kernel` where a folder is a pair."""
    name = path.relative_to(root).with_suffix("").as_posix()
    return name.removesuffix("/kernel")


def entry(path: Path, root: Path, tasks: Tasks, claim: Claim | None) -> Entry:
    """The kernel in a file, on the task that the file's place stands for."""
    name = name_of(path, root)
    try:
        return published(name, str(path), _task(path, root, tasks), _text(path), claim, file=path.name)
    except UserError as error:
        return Broken(name=name, where=str(path), reason=str(error))


def _task(path: Path, root: Path, tasks: Tasks) -> Task:
    beside = path.with_name(REFERENCE)
    if beside.is_file():
        return tasks.of_file(beside)
    named = problem_of(path, root)
    if not named:
        raise fault(
            path,
            f"no {REFERENCE} beside it, and its path names no problem",
            "Put one there, or name the file as in level1/19.py",
        )
    return tasks.named(named)


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():  # Of a pipe the end may never come.
        raise fault(path, "no regular file", "Copy its text into one")
    try:
        return read_source(path)
    except (OSError, ValueError) as error:
        raise fault(path, f"cannot be read, {error}", "Give a Python file") from None


def _claims(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    return json_object(text_of(path), path, _CLAIMS_ARE)
