"""The field's formats of tasks: what lies at a path, and the tasks that it holds."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from kbopt.core.errors import UserError, unknown_name
from kbopt.core.task import Task
from kbopt.tasks.formats import definition, gpumode, hard
from kbopt.tasks.formats.gpumode import is_test
from kbopt.tasks.formats.merging import merged
from kbopt.tasks.formats.model import FormatTask, Workload, fault
from kbopt.tasks.formats.roles import DEFAULT_SEED, Part, drawn

__all__ = ["FormatTask", "Workload", "is_path", "load", "matching", "read"]

ALL = "all"
_SEED = re.compile(r"(?:(.*)[+,])?seed=(.*)")
_MOST_DIGITS = 18
"""Of a seed: more than there are draws."""
_MOST = 8
_FEWEST_TESTS = 2
"""Of GPU MODE's tests among the eight: one is hidden, and one held out."""
_Reader = Callable[[Path, str], tuple[FormatTask, ...]]
_FILES: dict[str, tuple[str, _Reader]] = {
    "definition.json": ("SOL-ExecBench", definition.read_folder),
    "definitions": ("FlashInfer-Bench", definition.read_traces),
    "shapes.py": ("KernelBench-Hard", hard.read),
    "task.yml": (gpumode.NAME, gpumode.read),
    "task.yaml": (gpumode.NAME, gpumode.read),
}
"""The file or folder that tells a format, with its name."""


def is_path(name: str) -> bool:
    """Whether `name` is for this package: `PATH` or `PATH#WORKLOAD`, of a folder or a format's own file."""
    path = Path(_parted(name)[0])
    if path.name == "shapes.py":
        return path.with_name("reference.py").is_file()
    if not name or path.suffix == ".py":
        return False
    return path.suffix in (".json", ".yml", ".yaml") or path.exists()


def read(name: str) -> tuple[FormatTask, ...]:
    """What lies at the path: one reference, or the several of a FlashInfer-Bench data set.

    Raises `UserError` where it is no format, or more than one, and where a file is not as its format asks.
    """
    path = Path(name)
    if path.name in _FILES and path.exists():
        return _FILES[path.name][1](path.parent, name)
    if path.is_dir():
        found = [file for file in _FILES if os.path.lexists(path / file)]
        told = ", ".join(f"{file} ({_FILES[file][0]})" for file in found or _FILES)
        if not found:
            raise UserError(
                f"the task {name} is a folder. Give one of its .py files, or a folder "
                f"that has one of: {told}."
            )
        if len(found) > 1:
            raise UserError(
                f"the task {name} is a folder of {len(found)} formats: {told}. Give the file "
                f"of the one that is meant, such as {path / found[0]}."
            )
        return _FILES[found[0]][1](path, name)
    if not path.exists():
        raise fault(f"the task {name}", "there is no such file", "Give a task's name, a file or a folder")
    if path.suffix == ".json":
        return definition.read_file(path, name)
    raise fault(path, "the file of no format", f"A format has one of: {', '.join(_FILES)}")


def load(name: str) -> Task:
    """The task `PATH#WORKLOAD`, or `PATH#NAME,NAME` on several workloads, which are all shown.

    `PATH#all` is one on all of them, and PATH alone one on up to eight, spread over the list. Of these some
    are hidden and some held out, drawn by a seed: `PATH#all+seed=7`, `PATH#seed=7`. A name may be cut where
    it stays unique.

    Workloads that are models of their own make no task together: PATH alone is then the first. Raises
    `UserError` where there is no such workload, or where it cannot be resolved.
    """
    path, wanted = _parted(name)
    problems = read(path)
    if len(problems) > 1:
        raise UserError(
            f"the task {path} is a folder of {len(problems)} definitions. Name one of them, such as "
            f"{problems[0].path}; `kbopt tasks {path}` lists all."
        )
    problem = problems[0]
    is_name = any(workload.name == wanted for workload in problem.workloads)
    words, seed = (wanted, DEFAULT_SEED) if is_name else _seeded(wanted, name)
    if not words:
        return _some(problem, seed)
    if words == ALL and not is_name:
        return _drawn(problem, problem.workloads, seed, f"{ALL}+")
    if set(words) & set("*?[") and not is_name:
        raise fault(
            f"the task {name}",
            "a pattern stands for several tasks",
            f"Give {path}#{ALL}, or `kbopt sweep --tasks`",
        )
    parts = [words] if is_name else [part.strip() for part in words.split(",") if part.strip()]
    chosen = {one.name: one for one in (_chosen(problem, part) for part in parts or [words])}
    if len(chosen) == 1:
        return problem.task(next(iter(chosen.values())))
    return merged(problem, [Part(workload=one) for one in chosen.values()], name)


def _seeded(wanted: str, name: str) -> tuple[str, int]:
    """What stands before the seed, and the seed. Raises `UserError`."""
    found = _SEED.fullmatch(wanted)
    if not found:
        return wanted, DEFAULT_SEED
    words, seed = found[1] or "", found[2]
    if words not in ("", ALL) or not seed.isdecimal() or len(seed) > _MOST_DIGITS:
        raise fault(
            f"the task {name}",
            f"seed={seed[:40]}" + f" after {words[:40]!r}" * bool(words),
            f"A seed is a whole number of up to {_MOST_DIGITS} digits, for #seed=7 or #{ALL}+seed=7; "
            "workloads that are named are all shown",
        )
    return words, int(seed)


def _some(problem: FormatTask, seed: int) -> Task:
    """Of up to eight workloads, which take three times as long as one; of GPU MODE at least two are tests."""
    tests = [one for one in problem.workloads if is_test(problem.format, one)]
    timed = [one for one in problem.workloads if one not in tests]
    num_tests = min(len(tests), max(_FEWEST_TESTS, _MOST - len(timed)))
    found = [*_spread(timed, _MOST - num_tests), *_spread(tests, num_tests)]
    try:
        return _drawn(problem, found, seed, "")
    except UserError:
        return problem.task(found[0])


def _drawn(problem: FormatTask, found: Sequence[Workload], seed: int, words: str) -> Task:
    if len(found) == 1:
        return problem.task(found[0])
    return merged(problem, drawn(problem.format, found, seed), f"{problem.path}#{words}seed={seed}")


def _spread(found: Sequence[Workload], most: int) -> list[Workload]:
    """Up to `most` of them, from the first to the last in equal steps."""
    if len(found) <= most:
        return list(found)
    return [found[round(at * (len(found) - 1) / max(1, most - 1))] for at in range(most)]


def matching(name: str) -> tuple[str, ...]:
    """The names of the tasks that `PATH#PATTERN` stands for; a name without a pattern is itself."""
    path, wanted = _parted(name)
    if not set(wanted) & set("*?["):
        return (name,)
    found = [
        problem.name(workload)
        for problem in read(path)
        for workload in problem.workloads
        if fnmatch.fnmatchcase(workload.name, wanted)
    ]
    if not found:
        raise fault(f"the task {name}", "no workload has such a name", f"`kbopt tasks {path}` lists them")
    return tuple(found)


def _parted(name: str) -> tuple[str, str]:
    path, _, workload = ("", "", "") if Path(name).exists() else name.rpartition("#")
    return ((path or name).rstrip("/") or "/", workload)


def _chosen(problem: FormatTask, wanted: str) -> Workload:
    named = [workload for workload in problem.workloads if workload.name == wanted]
    named = named or [workload for workload in problem.workloads if workload.name.startswith(wanted)]
    if len(named) != 1:
        names = [workload.name for workload in named] or [one.name for one in problem.workloads]
        raise unknown_name(f"workload of {problem.path}", wanted, names)
    return named[0]
