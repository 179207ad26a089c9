"""Names of tasks and what they stand for."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kbopt.core.errors import UserError, unknown_name
from kbopt.core.sources import read_source
from kbopt.core.task import Task
from kbopt.tasks import formats
from kbopt.tasks import kernelbench as levels
from kbopt.tasks.formats.templates import precision_of
from kbopt.tasks.source import family_of, title_of, validate

_SOURCES = Path(__file__).parent / "sources"
_RANGE = re.compile(r"(?P<group>\w+)/(?P<first>\d+)\.\.(?P<last>\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInfo:
    """One line of `kbopt tasks`. `where_from` says who wrote the task."""

    name: str
    family: str
    title: str
    where_from: str


def list_tasks(*, kernelbench: Path | None = None) -> tuple[TaskInfo, ...]:
    """The tasks that ship with kbopt, `matmul/0` to `matmul/15` in their order, then `quick/*` by name.

    With a checkout of KernelBench its problems follow, by level and number. Raises `UserError` where
    `kernelbench` is no checkout.
    """
    shipped = (_info(name, path.read_text()) for name, path in _built_in().items())
    return (*shipped, *(_level_info(problem, kernelbench) for problem in levels.problems(kernelbench)))


def list_formats(path: str) -> tuple[TaskInfo, ...]:
    """The tasks at `path`, a file or folder in one of the field's formats: one for each workload.

    A workload that cannot be resolved says so in place of its title. Raises `UserError` for another path.
    """
    return tuple(
        _workload_info(problem, workload) for problem in formats.read(path) for workload in problem.workloads
    )


def load_task(name: str, *, kernelbench: Path | None = None) -> Task:
    """The task called `name`: built in, `level1/12`, the path of a `.py` file, or `PATH#WORKLOAD`.

    `kernelbench` is a checkout of KernelBench; without it the environment's `KBOPT_KERNELBENCH`, then
    the Hugging Face dataset, is asked for the levels. Raises `UserError` for a name that stands for
    nothing, with the nearest names, and for a source that is not in KernelBench's format.
    """
    if name.endswith(".py") and not formats.is_path(name):
        return _from_file(name)
    level = levels.Problem.parse(name)
    if level:
        return levels.load(level, kernelbench)
    path = _built_in().get(name)
    if path is None:
        if formats.is_path(name):
            return formats.load(name)
        _refuse_group(name)
        raise unknown_name("task", name, (*_built_in(), "level1/1", "PATH.py", "FOLDER"))
    source = path.read_text()
    return Task(name=name, source=source, family=family_of(source))


def expand(patterns: Sequence[str]) -> tuple[str, ...]:
    """The names that `patterns` stand for, in their order, each once.

    A group (`quick`), a glob (`quick/*`), a range with both ends (`matmul/0..3`, `level1/1..18`), a task's
    name, the path of a `.py` file, or `PATH#*` for all workloads of a task in another format. Raises
    `UserError` for a pattern that stands for nothing.
    """
    names = (name for pattern in patterns for name in _expand_one(pattern))
    return tuple(dict.fromkeys(names))


def _expand_one(pattern: str) -> tuple[str, ...]:
    if pattern.endswith(".py") or levels.Problem.parse(pattern) or pattern in _built_in():
        return (pattern,)
    in_range = _RANGE.fullmatch(pattern)
    if in_range:
        names = tuple(_range(in_range["group"], int(in_range["first"]), int(in_range["last"]), pattern))
        unknown = [name for name in names if name not in _built_in() and not levels.Problem.parse(name)]
        if unknown:
            raise unknown_name("task", unknown[0], _built_in())
        return names
    names = tuple(name for name in _built_in() if fnmatch.fnmatchcase(name, pattern))
    names = names or tuple(name for name in _built_in() if name.startswith(f"{pattern}/"))
    if not names and formats.is_path(pattern):
        return formats.matching(pattern)
    if not names:
        groups = {f"{name.split('/')[0]}/*" for name in _built_in()}
        raise unknown_name("task", pattern, (*groups, *_built_in()))
    return names


def _range(group: str, first: int, last: int, pattern: str) -> list[str]:
    if first > last:
        raise UserError(f"{pattern} names no task: a range goes upwards, as in {group}/{last}..{first}")
    return [f"{group}/{index}" for index in range(first, last + 1)]


@functools.cache
def _built_in() -> dict[str, Path]:
    """Each name with its source. Matmul files are numbered in the order of KernelBench's file names."""
    matmul = sorted((_SOURCES / "matmul").glob("*.py"))
    quick = sorted((_SOURCES / "quick").glob("*.py"))
    numbered = {f"matmul/{index}": path for index, path in enumerate(matmul)}
    return numbered | {f"quick/{path.stem}": path for path in quick}


def _refuse_group(name: str) -> None:
    """Raises `UserError` where `name` stands for several tasks: a group or a pattern."""
    group = name.rstrip("/*")
    members = [member for member in _built_in() if member.startswith(f"{group}/")]
    if members:
        raise UserError(
            f"{name} is a group of {len(members)} tasks, {members[0]} to {members[-1]}. Name one of them, or "
            f"search them all with `kbopt sweep --tasks {group}`."
        )


def _level_info(problem: levels.Problem, checkout: Path | None) -> TaskInfo:
    """A problem of a checkout; one that is not in KernelBench's format says so in place of its title."""
    try:
        task = levels.load(problem, checkout)
    except UserError as error:
        return TaskInfo(name=problem.name, family="", title=str(error), where_from="KernelBench")
    title = title_of(task.source)
    return TaskInfo(name=problem.name, family=task.family, title=title, where_from="KernelBench")


def _workload_info(problem: formats.FormatTask, workload: formats.Workload) -> TaskInfo:
    name = problem.name(workload)
    try:
        task = problem.task(workload)
    except UserError as error:
        return TaskInfo(name=name, family="", title=str(error), where_from=problem.format)
    told = filter(None, (problem.title.rstrip("."), workload.text, precision_of(task.source)))
    return TaskInfo(name=name, family=task.family, title="; ".join(told), where_from=problem.format)


def _info(name: str, source: str) -> TaskInfo:
    where_from = "KernelBench level 1" if name.startswith("matmul/") else "kbopt"
    return TaskInfo(name=name, family=family_of(source), title=title_of(source), where_from=where_from)


def _from_file(name: str) -> Task:
    path = Path(name)
    try:
        source = read_source(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot read the task {name}: {reason}. Give a task's name or a .py file.") from None
    validate(source, name)
    return Task(name=name, source=source, family=family_of(source))
