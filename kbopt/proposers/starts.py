"""The user's own kernels as the beginning of a search: `--start FILE`."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from kbopt.core.errors import UNPARSABLE, UserError
from kbopt.core.ports import Proposer
from kbopt.core.proposals import Brief, Candidate, NoProposal
from kbopt.core.sources import read_source
from kbopt.core.task import Seed, seed_name
from kbopt.core.tune_comments import parse
from kbopt.proposers.answers import names_bound


class StartingProposer:
    """Answers the first briefs with `starts` as they are, one each, and hands the others to `then`."""

    def __init__(self, starts: tuple[Seed, ...], then: Proposer) -> None:
        self.name = then.name
        self._starts = starts
        self._then = then

    async def propose(self, brief: Brief) -> Candidate | NoProposal:
        number = int(brief.id[1:])  # briefs are numbered from 1 in the order in which they were asked
        if brief.parent is not None or number > len(self._starts):
            return await self._then.propose(brief)
        start = self._starts[number - 1]
        return Candidate(
            id=brief.id,
            source=start.source,
            parent=None,
            proposer="start",
            memory_version=brief.memory_version,
            note=f"{start.name} as it was given",
        )


def read_starts(
    paths: Sequence[Path], as_model: Callable[[str, str], str] = lambda text, _: text
) -> tuple[Seed, ...]:
    """The kernels in the files, in their order; a file without a `# seed:` line gets one with its name.

    `as_model` makes a source that defines `ModelNew` of a file's text and name, for kernels in another form.
    Raises `UserError` for a file that cannot be read, is no Python, or defines no `ModelNew`.
    """
    starts: list[Seed] = []
    for path in paths:
        start = _read(path, as_model)
        taken = {other.name for other in starts}
        if not start.name:
            name = next(
                name
                for name in (path.stem, *(f"{path.stem}-{n}" for n in range(2, 1000)))
                if name not in taken
            )
            start = replace(start, name=name, source=f"{start.source.rstrip()}\n\n# seed: {name}\n")
        starts.append(start)
    return tuple(starts)


def check_starts(starts: Sequence[Seed]) -> None:
    """Raises `UserError` where `--proposer tunables` could vary nothing in them."""
    if not any(tunable.alternatives for start in starts for tunable in parse(start.source)):
        raise UserError(
            f"--start {', '.join(start.name for start in starts)}: no `# tune:` comment with alternatives: "
            "there is nothing to vary. Write one beside a value, as in `BLOCK = 64  # tune: 32, 64`, or use "
            "--proposer llm with --model; `kbopt eval --kernel FILE` judges a kernel as it is."
        )


def _read(path: Path, as_model: Callable[[str, str], str]) -> Seed:
    hint = "Give a .py file that defines ModelNew."
    try:
        text = read_source(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"--start {path} cannot be read: {reason}. {hint}") from None
    source = as_model(text, str(path))
    try:
        module = ast.parse(source)
    except UNPARSABLE as error:
        raise UserError(f"--start {path} is no Python source: {error}. {hint}") from None
    if "ModelNew" not in names_bound(module):
        raise UserError(
            f"--start {path} defines no ModelNew, the class that takes the place of the task's Model."
        )
    return Seed(name=seed_name(source), source=source)
