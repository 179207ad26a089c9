"""Task folders of KernelBench-Hard and GPU MODE with the solutions that ship with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kbopt.core.errors import UserError
from kbopt.tasks.candidates import missing
from kbopt.tasks.formats.model import fault, text_of
from kbopt.tasks.published.model import Broken, Claim, Empty, Entry, Tasks, published

SUBMISSIONS = ("kernel*.py", "submission*.py", "submissions/**/*.py", "solution*.py", "solutions/**/*.py")
"""Where these formats have solutions, from the task's folder. Other files are the task's own: templates, the
clock, checks.
"""
_TASK_FILES = ("task.yml", "task.yaml", "shapes.py")


def task_folders(root: Path) -> list[Path]:
    """The folders of tasks at and under `root`, but for what is hidden, in their order."""
    found = {file.parent for name in _TASK_FILES for file in root.rglob(name) if _is_task(file)}
    return sorted(
        folder
        for folder in found
        if not any(part.startswith((".", "__")) for part in folder.relative_to(root).parts)
    )


def _is_task(file: Path) -> bool:
    return file.name != "shapes.py" or file.with_name("reference.py").is_file()


def solutions(folder: Path) -> list[Path]:
    """Those of the task in `folder`, in the order of the patterns."""
    return list(dict.fromkeys(file for pattern in SUBMISSIONS for file in sorted(folder.glob(pattern))))


def entry(path: Path, name: str, folder: Path, tasks: Tasks, claim: Claim | None) -> Entry:
    """The solution in a file, on the workloads that `kbopt eval --task FOLDER` takes."""
    try:
        task = tasks.named(str(folder))
        found = published(name, str(path), task, text_of(path), claim, file=path.name)
        if lost := missing(found.source, path.name, task):
            raise fault(path, lost, "Define one, or take the file away")
        return found
    except UserError as error:
        return Broken(name=name, where=str(path), reason=str(error))


def without_solutions(root: Path) -> Iterator[Empty]:
    """An entry for each task under `root` with which none ships."""
    for folder in task_folders(root):
        if not solutions(folder):
            yield Empty(name=folder.relative_to(root).as_posix(), where=str(folder))
