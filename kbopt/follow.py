"""Follow runs while they go on: a line for each evaluation, and Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kbopt.cluster.messages import CoordinatorStatus
from kbopt.config import BackendConfig
from kbopt.core.events import Entry
from kbopt.core.extras import require
from kbopt.core.scoring import fast_p_by_threshold
from kbopt.finish import Finished, finish, open_run
from kbopt.store.journal import JournalReader

if TYPE_CHECKING:
    from kbopt.reporting.wandb_log import WandbLog

_TRUE = ("1", "true", "yes", "on")
"""Values of WANDB_DISABLED that switch W&B off, in any case."""
INIT_TIMEOUT_S = 60.0
"""How long W&B may take to answer at first, unless its own WANDB_INIT_TIMEOUT says otherwise."""


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
    """Where searches are logged. `mode` None leaves it to W&B's own WANDB_MODE."""

    project: str
    mode: Literal["online", "offline"] | None = None

    @classmethod
    def of(
        cls, project: str, mode: Literal["online", "offline"] | None, say: Callable[[str], None]
    ) -> WandbOptions | None:
        """Return the options of `--use-wandb`, or None where the environment says that W&B is off.

        `say` is told where nothing will go online. A `mode` that was given goes before the environment.
        """
        if mode is None and (found := _switched_off()):
            say(f"Weights & Biases logs nothing: {found}. Unset it, or give --wandb-mode online or offline.")
            return None
        if mode is None and (own := os.environ.get("WANDB_MODE")) in ("offline", "dryrun"):
            say(
                f"Weights & Biases stays offline: WANDB_MODE={own}. `wandb sync` uploads later what it "
                "writes into the run's folder."
            )
        return cls(project=project, mode=mode)


def _switched_off() -> str:
    """Return the variable that switches W&B off, with its value, or "".

    W&B itself reads WANDB_MODE alone. WANDB_DISABLED is older, and Hugging Face's trainers read it still.
    """
    mode, disabled = os.environ.get("WANDB_MODE", ""), os.environ.get("WANDB_DISABLED", "")
    if mode == "disabled":
        return f"WANDB_MODE={mode}"
    return f"WANDB_DISABLED={disabled}" if disabled.lower() in _TRUE else ""


class WandbFollower:
    """Logs the search in `folder` to Weights & Biases as its journal grows. Its failures stop nothing."""

    def __init__(self, folder: Path, options: WandbOptions, backend: BackendConfig, group: str = "") -> None:
        require("wandb", "--use-wandb")
        from kbopt.reporting.wandb_log import WandbLog, WandbSettings

        settings = WandbSettings(
            project=options.project,
            directory=folder / "wandb",
            group=group,
            gpu=backend.gpu if backend.name == "modal" else backend.device,
            mode=options.mode,
            init_timeout_s=float(os.environ.get("WANDB_INIT_TIMEOUT", INIT_TIMEOUT_S)),
        )
        with open_run(folder) as run:
            self._log: WandbLog = WandbLog(run, settings)
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


class SweepWandb:
    """Logs the searches of the sweep in `folder`: a run for each, open from its first result to its end.

    `failed` says what W&B could not do; from then on nothing is logged. The searches do not notice.
    """

    def __init__(self, sweep: str, folder: Path, options: WandbOptions, backend: BackendConfig) -> None:
        self._sweep = sweep
        self._folder = folder
        self._options = options
        self._backend = backend
        self._open: dict[str, WandbFollower] = {}
        self._shares: dict[str, Mapping[str, float]] = {}
        self.failed: str | None = None

    def __call__(self, status: CoordinatorStatus) -> None:
        speedups = [search.best.speedup if search.best else 0.0 for search in status.searches]
        shares = {f"fast_p/{p}": share for p, share in fast_p_by_threshold(speedups).items()}
        for search in status.searches:
            folder = self._folder / search.name
            if self.failed or not search.progress.evaluations or logged_mark(folder).exists():
                continue
            if search.name not in self._open:
                self._open[search.name] = WandbFollower(folder, self._options, self._backend, self._sweep)
            log = self._open[search.name]
            log()
            if shares != self._shares.get(search.name):
                log.figures(shares)
                self._shares[search.name] = shares
            if search.ended is not None or status.finished:
                self._close(search.name, ended=search.ended is not None)

    def _close(self, name: str, *, ended: bool) -> None:
        folder = self._folder / name
        self.failed = self._open.pop(name).close(finish(folder))
        if ended and not self.failed:
            logged_mark(folder).touch()


def logged_mark(folder: Path) -> Path:
    """Exists once the whole search in `folder` has been logged: a driver that attaches leaves it alone."""
    return folder / "wandb" / "complete"
