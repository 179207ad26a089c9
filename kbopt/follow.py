"""Follow runs while they go on: a line for each evaluation, and Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kbopt.config import BackendConfig
from kbopt.core.events import Entry
from kbopt.finish import Finished, open_run
from kbopt.reporting.wandb_log import WandbLog, WandbSettings
from kbopt.store.journal import JournalReader


class JournalFollower:
    """Hands each entry that the journal in `folder` gained since the last call to `on_entry`, in order."""

    def __init__(self, folder: Path, on_entry: Callable[[Entry], None], *, after: int = 0) -> None:
        self._path = folder / "journal.sqlite"
        self._on_entry = on_entry
        self._last = after

    def __call__(self) -> None:
        with JournalReader(self._path) as journal:
            for entry in journal.entries(after=self._last):
                self._last = entry.number
                self._on_entry(entry)


@dataclass(frozen=True, slots=True, kw_only=True)
class WandbOptions:
    """Whether and where searches are logged. `mode` None leaves it to W&B's own WANDB_MODE."""

    project: str
    mode: Literal["online", "offline"] | None = None


class WandbFollower:
    """Logs the search in `folder` to Weights & Biases as its journal grows. Its failures stop nothing."""

    def __init__(self, folder: Path, options: WandbOptions, backend: BackendConfig, group: str = "") -> None:
        _, run, journal = open_run(folder)
        journal.close()
        mode = options.mode or ("offline" if os.environ.get("WANDB_MODE") == "offline" else "online")
        settings = WandbSettings(
            project=options.project,
            directory=folder / "wandb",
            group=group,
            gpu=backend.gpu if backend.name == "modal" else backend.device,
            mode=mode,
        )
        self._log = WandbLog(run, settings)
        self._follow = JournalFollower(folder, self._log.entry)

    def __call__(self) -> None:
        self._follow()

    def figures(self, values: Mapping[str, float]) -> None:
        """Log what no journal of one search holds, such as fast_p over a sweep."""
        self._log.figures(values)

    def close(self, finished: Finished) -> str | None:
        """Upload the kernel and the report; the result says what failed, None for nothing."""
        self._follow()
        self._log.close(kernel=finished.source, report=finished.report)
        return self._log.failed
