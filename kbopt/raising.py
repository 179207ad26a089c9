"""Raise the limits of a run, or of all searches of a sweep, that stand still: they go on from where they are.

The journals keep what was raised, so that the search is the same whenever it is replayed; the configuration
that a run or sweep was started with stays as it was written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from kbopt.config import RunConfig
from kbopt.core import codec
from kbopt.core.errors import UserError
from kbopt.core.events import Raised, active_s
from kbopt.core.raising import changes, check_raise, in_force, with_steps
from kbopt.core.search_state import SearchState
from kbopt.core.settings import SearchSettings
from kbopt.core.tally import Progress
from kbopt.follow import logged_mark
from kbopt.store.journal import SqliteJournal
from kbopt.sweep import SweepConfig


@dataclass(frozen=True, slots=True)
class _Standing:
    """A search whose journal this process holds, and how it would be with the limits that are wanted.

    `ends_again` says why it would end at once.
    """

    name: str
    journal: SqliteJournal
    settings: SearchSettings
    progress: Progress
    elapsed_s: float
    ends_again: str | None

    def check(self, wanted: Raised) -> None:
        check_raise(self.settings, wanted, self.progress, elapsed_s=self.elapsed_s, name=self.name)
        if self.ends_again:
            raise UserError(
                f"{self.name} would end again at once: {self.ends_again}. Raise that limit too; a "
                "target that was reached stays reached."
            )


def raise_run(folder: Path, wanted: Raised) -> str:
    """Raise limits of the run in `folder`; returns what was raised, in words. Raises `UserError`."""
    with ExitStack() as stack:
        journal, config = _held(stack, folder)
        if config.settings.budget.grows and (wanted.evaluations or wanted.usd):
            raise UserError(
                f"{folder} has a part of its sweep's evaluations and dollars. Raise those of the sweep: "
                f"kbopt sweep resume {folder.parent} --max-evals N"
            )
        wanted = with_steps(in_force(config.settings, journal.raises()), wanted)
        found = _standing(str(folder), journal, config, wanted)
        found.check(wanted)
        journal.append(wanted)
        return changes(found.settings, wanted)


def raise_sweep(config: SweepConfig, folder: Path, wanted: Raised) -> str:
    """Raise limits of every search of the sweep that can go on with them; returns what was raised, in words.

    Raises `UserError`, and changes nothing, where a search is being worked on, or none could go on.
    """
    folders = [folder / run.name for run in config.runs() if (folder / run.name / "journal.sqlite").exists()]
    if not folders:
        raise UserError(f"{folder} has no search that has begun. Give `kbopt sweep resume` without limits.")
    with ExitStack() as stack:
        opened = [(place.name, *_held(stack, place)) for place in folders]
        together = in_force(config.settings, opened[0][1].raises())
        wanted = with_steps(together, wanted)
        found = [_standing(name, journal, one, wanted) for name, journal, one in opened]
        if config.spend == "headroom":
            _check_shared(together, wanted, [one.progress for one in found], str(folder))
            wanted_of_each = replace(wanted, evaluations=None, usd=None)
        else:
            wanted_of_each = wanted
        able, refused = [], []
        for one in found:
            try:
                one.check(wanted_of_each)
                able.append(one)
            except UserError as error:
                refused.append(str(error))
        if not able:
            raise UserError(refused[0])
        for one in able:
            one.journal.append(wanted)
            logged_mark(folder / one.name).unlink(missing_ok=True)
    of = "" if len(able) == len(found) else f" for {len(able)} of {len(found)} searches; {refused[0]}"
    return changes(together, wanted) + of


def _held(stack: ExitStack, folder: Path) -> tuple[SqliteJournal, RunConfig]:
    """The journal in `folder`, which nobody else writes until `stack` ends, and its configuration."""
    journal = SqliteJournal(folder / "journal.sqlite")
    stack.callback(journal.close)
    return journal, codec.loads(RunConfig, journal.config, journal.path)


def _standing(name: str, journal: SqliteJournal, config: RunConfig, wanted: Raised) -> _Standing:
    entries = list(journal.entries())
    search = SearchState(task=config.task, settings=config.settings)
    search.replay(entry.event for entry in entries)
    progress = search.progress
    search.apply(wanted)
    return _Standing(
        name=name,
        journal=journal,
        settings=in_force(config.settings, journal.raises()),
        progress=progress,
        elapsed_s=(elapsed_s := active_s(entries)),
        ends_again=search.exhausted(elapsed_s),
    )


def _check_shared(settings: SearchSettings, wanted: Raised, progress: Sequence[Progress], name: str) -> None:
    """The same for what all searches have together, of which `settings` have the even share."""
    evaluations, usd = (
        sum(one.evaluations for one in progress) / len(progress),
        sum(one.usd for one in progress) / len(progress),
    )
    average = replace(progress[0], evaluations=math.ceil(evaluations), usd=usd)
    shared = Raised(evaluations=wanted.evaluations, usd=wanted.usd)
    check_raise(settings, shared, average, elapsed_s=0.0, name=f"each search of {name}")
