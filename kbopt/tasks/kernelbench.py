"""KernelBench's levels, from a checkout of its repository or from its Hugging Face dataset."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from kbopt.core.errors import UserError, unknown_name
from kbopt.core.sources import read_source
from kbopt.core.task import Task
from kbopt.core.text import ranges
from kbopt.tasks.families import family_of_problem
from kbopt.tasks.source import family_of, validate

CHECKOUT_VARIABLE = "KBOPT_KERNELBENCH"
LEVELS = (1, 2, 3, 4)

_NAME = re.compile(r"level(\d+)/(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A problem by its numbers, as in `level1/12`."""

    level: int
    index: int

    @classmethod
    def parse(cls, name: str) -> Problem | None:
        """The problem that `name` stands for; None for a name of another form."""
        found = _NAME.fullmatch(name)
        return cls(level=int(found[1]), index=int(found[2])) if found else None

    @property
    def name(self) -> str:
        return f"level{self.level}/{self.index}"


def load(problem: Problem, checkout: Path | None) -> Task:
    """The problem from `checkout`, else from `KBOPT_KERNELBENCH`, else from the dataset.

    Raises `UserError` where the level or the problem does not exist, or where neither source is at hand.
    """
    if problem.level not in LEVELS:
        raise unknown_name("level", f"level{problem.level}", [f"level{level}" for level in LEVELS])
    folder = checkout or _from_environment()
    source = _from_checkout(problem, folder) if folder else _from_dataset(problem)
    validate(source, problem.name)
    family = family_of(source) or family_of_problem(problem.level, problem.index)
    return Task(name=problem.name, source=source, family=family)


def problems(checkout: Path | None) -> tuple[Problem, ...]:
    """The problems of `checkout`, else of `KBOPT_KERNELBENCH`, by level and number; none without either.

    Raises `UserError` for a folder that is no checkout.
    """
    folder = checkout or _from_environment()
    if folder is None:
        return ()
    found = [
        Problem(level=level, index=index)
        for level in LEVELS
        if (folder / "KernelBench" / f"level{level}").is_dir()
        for index in _numbers(folder / "KernelBench" / f"level{level}")
    ]
    if not found:
        raise _no_checkout(folder, LEVELS[0])
    return tuple(found)


def _numbers(folder: Path) -> list[int]:
    """The numbers of the problems in a level's folder, each once, ascending."""
    named = (path.name.split("_")[0] for path in folder.glob("[0-9]*_*.py"))
    return sorted({int(number) for number in named if number.isdecimal()})


def _no_checkout(checkout: Path, level: int) -> UserError:
    return UserError(
        f"{checkout} is no checkout of KernelBench: it has no problems in KernelBench/level{level}. "
        f"Give --kernelbench or {CHECKOUT_VARIABLE} the folder that git cloned."
    )


def _from_environment() -> Path | None:
    value = os.environ.get(CHECKOUT_VARIABLE)
    return Path(value) if value else None


def _from_checkout(problem: Problem, checkout: Path) -> str:
    folder = checkout / "KernelBench" / f"level{problem.level}"
    numbers = _numbers(folder)
    if not numbers:
        raise _no_checkout(checkout, problem.level)
    if problem.index not in numbers:
        raise UserError(f"no problem {problem.name} in {folder}: it has the problems {ranges(numbers)}.")
    path = min(folder.glob(f"{problem.index}_*.py"))
    try:
        return read_source(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the task {path}: {error}. Check the checkout.") from None


def _from_dataset(problem: Problem) -> str:
    from kbopt.tasks.dataset import read_problem

    return read_problem(problem.level, problem.index)
