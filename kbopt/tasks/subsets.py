"""Which of KernelBench's problems a benchmark runs: those of some levels, a part of them, or names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from kbopt.core.errors import UserError, unknown_name
from kbopt.tasks import kernelbench as levels
from kbopt.tasks.catalog import expand

Subset = Literal["representative", "all"]

REPRESENTATIVE: Mapping[int, tuple[int, ...]] = {
    1: (1, 3, 6, 18, 23, 26, 33, 36, 40, 42, 48, 54, 57, 65, 77, 82, 86, 87),
    2: (1, 2, 8, 18, 23, 28, 33, 43),
    3: (1, 5, 8, 11, 20, 21, 33, 38, 43),
}
"""The numbers of KernelBench's own representative problems (`get_representative_subset` in its
src/kernelbench/dataset.py, 2026): every family of a level at least once, by the problems' names. Figures on
them compare with those of others who use the same part. Level 4 has none there."""


def level_numbers(text: str) -> tuple[int, ...]:
    """Those of a list such as `1,2,3`, each once, in its order. Raises `UserError` for any other text."""
    allowed = {str(level): level for level in levels.LEVELS}
    wanted = [part.strip() for part in text.split(",")]
    unknown = [part for part in wanted if part not in allowed]
    if unknown:
        raise UserError(f"--levels {text!r}: there is no level {unknown[0]!r}. Allowed: {', '.join(allowed)}")
    return tuple(dict.fromkeys(allowed[part] for part in wanted))


def chosen(subset: str, wanted: Sequence[int], checkout: Path | None) -> tuple[str, ...]:
    """The names of the tasks in `subset`, by level and number.

    `representative` and `all` are of the levels in `wanted`; of a checkout that holds a part of KernelBench
    they are what is there. Any other `subset` is a list of names and patterns, and may name tasks beside
    KernelBench's. Raises `UserError` where nothing is left.
    """
    if subset not in get_args(Subset):
        try:
            return expand([part for part in map(str.strip, subset.split(",")) if part])
        except UserError:
            if not subset.isidentifier():
                raise
            allowed = (*get_args(Subset), "matmul", "quick", "level1/1..20")
            raise unknown_name("subset", subset, allowed) from None
    there = _numbers(wanted, checkout)
    if subset == "representative":
        there = {level: [n for n in there[level] if n in REPRESENTATIVE.get(level, ())] for level in wanted}
    names = tuple(f"level{level}/{number}" for level in wanted for number in there[level])
    if not names:
        raise UserError(
            f"--subset {subset} has no problem of level {', '.join(map(str, wanted))}. Give other --levels, "
            "--subset all, or names such as --subset level1/1,level1/23."
        )
    return names


def _numbers(wanted: Sequence[int], checkout: Path | None) -> dict[int, list[int]]:
    """The problems of each level that the checkout has, else the dataset."""
    found = levels.problems(checkout)
    if found:
        return {level: [p.index for p in found if p.level == level] for level in wanted}
    from kbopt.tasks.dataset import numbers

    return {level: list(numbers(level)) for level in wanted}
