"""What a report is made from: one search with its journal, as plain values of the core."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from kbopt.core.events import Entry
from kbopt.core.settings import SearchSettings
from kbopt.core.task import Task

Transcripts = Callable[[str], str | None]
"""The conversation with the language model that answered a brief, by the brief's id; None without one."""


def no_transcripts(_: str) -> None:
    """The `Transcripts` of a run in which no language model took part."""
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One search. `entries` is read once, in order, so an iterator over a long journal will do.

    `config` is the run's configuration as JSON values; the report shows it and reads nothing from it.
    `reproduce` is the command that measures its best kernel again, `reproduce_elsewhere` the one for a
    machine that has only the page, with the kernel saved as `best.py`. `setup` says by what the run was made,
    such as its proposer and its models: what a comparison tells runs apart by, besides the search's settings.
    """

    name: str
    task: Task
    settings: SearchSettings
    config: Mapping[str, object]
    entries: Iterable[Entry]
    transcripts: Transcripts = no_transcripts
    reproduce: str = ""
    reproduce_elsewhere: str = ""
    setup: Mapping[str, str] = field(default_factory=dict)
