"""The library of lessons at both ends of a search: what it is shown, and what it leaves."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from kbopt.compose.backends import device_facts
from kbopt.compose.proposers import language_of
from kbopt.config import RunConfig
from kbopt.core.errors import UserError
from kbopt.core.events import Event


def with_lessons(config: RunConfig) -> RunConfig:
    """`config` with what its library has for its task. Raises `UserError` where that cannot be used."""
    if not config.proposer.library:
        return config
    from kbopt.core.lessons import shown
    from kbopt.store.lessons import read_lessons

    library = Path(config.proposer.library)
    if not library.parent.is_dir():
        raise UserError(
            f"--library {library}: there is no folder {library.parent}. Make it, or name another file."
        )
    if not os.access(library.parent, os.W_OK, effective_ids=True):
        raise UserError(
            f"--library {library}: the folder {library.parent} may not be written to, and the search leaves "
            "its lessons there. Copy the file to a folder of yours, or use --no-library."
        )
    lessons = shown(
        read_lessons(library),
        task=config.task.name,
        family=config.task.family,
        language=language_of(config.proposer, config.backend),
        device_facts=device_facts(config.backend),
    )
    return replace(config, lessons=lessons)


def add_to_library(config: RunConfig, events: Iterable[Event]) -> int:
    """Have the library keep what the search's journal teaches; how many lessons were new."""
    from kbopt.core.lessons import lessons_of
    from kbopt.store.lessons import add_lessons

    found = lessons_of(
        events,
        task=config.task.name,
        family=config.task.family,
        language=language_of(config.proposer, config.backend),
        run=config.name,
        date=datetime.date.today().isoformat(),
    )
    return add_lessons(Path(config.proposer.library), found)
