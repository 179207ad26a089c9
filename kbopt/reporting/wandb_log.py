"""Weights & Biases: one run for each search, fed from the journal's entries by a thread of its own.

The search hands over entries and never waits. Whatever goes wrong on this side is logged once and ends the
logging, not the search: the journal holds everything, W&B is a copy.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import wandb
import wandb.errors

from kbopt.core import codec
from kbopt.core.events import Entry, Evaluated
from kbopt.core.scoring import score
from kbopt.reporting.history import History
from kbopt.reporting.records import Node
from kbopt.reporting.run import Run

log = logging.getLogger(__name__)

TABLE_ROWS = 1_000
TABLE_COLUMNS: list[str | int] = [
    "candidate",
    "parent",
    "outcome",
    "speedup",
    "ci_low",
    "ci_high",
    "proposer",
    "note",
    "source",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class WandbSettings:
    """Where a search is logged. `group` is the sweep, empty for a single run; `directory` is local.

    `mode` `offline` writes under `directory` only; `wandb sync` uploads it later. None leaves it to
    WANDB_MODE and W&B's own settings.
    """

    project: str
    directory: Path
    group: str = ""
    entity: str = ""
    gpu: str = ""
    mode: Literal["online", "offline"] | None = None
    init_timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class _Figures:
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Close:
    kernel: Path | None
    report: Path | None


class WandbLog:
    """Logs one search. `failed` says why the logging ended early, None while all is well.

    The directory holds what a later session needs to go on with the same run on W&B: its `id`, and as
    `logged` the number of the last entry that was logged, so that none is logged again.
    """

    def __init__(self, run: Run, settings: WandbSettings) -> None:
        self.failed: str | None = None
        self._run = run
        self._settings = settings
        self._queue: queue.SimpleQueue[Entry | _Figures | _Close] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"wandb-{run.name}", daemon=True)
        self._thread.start()

    def entry(self, entry: Entry) -> None:
        """Take one entry of the journal, in order; returns at once."""
        if self.failed is None:
            self._queue.put(entry)

    def figures(self, values: Mapping[str, float]) -> None:
        """Log figures that no journal of one search holds, such as the sweep's `fast_p/1.0`."""
        if self.failed is None:
            self._queue.put(_Figures(values))

    def close(
        self, *, kernel: Path | None = None, report: Path | None = None, timeout_s: float = 120.0
    ) -> bool:
        """Upload the best kernel and the report, and finish. False if that failed or took longer."""
        self._queue.put(_Close(kernel, report))
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._give_up(
                f"not finished after {timeout_s:g} s; what is logged lies in {self._settings.directory}"
            )
        return self.failed is None

    def _work(self) -> None:
        try:
            self._log_all()
        except Exception as error:  # noqa: BLE001 - W&B's border: its service and its client may raise anything
            self._give_up(f"{type(error).__name__}: {error}")
            if not isinstance(error, wandb.errors.Error | ValueError):
                # Its exit hook would raise for a service that is gone. Nothing is left to be rescued there.
                with contextlib.suppress(Exception):
                    wandb.teardown()

    def _give_up(self, reason: str) -> None:
        if self.failed is None:
            self.failed = reason
            log.warning(
                "Weights & Biases: %s. The search goes on; its journal holds everything.", reason.rstrip(".")
            )

    def _log_all(self) -> None:
        logged = self._started()
        try:
            self._log_to(logged)
        except BaseException:
            with contextlib.suppress(Exception):
                logged.finish(exit_code=1)
            raise
        logged.finish()

    def _log_to(self, logged: wandb.Run) -> None:
        history = History(texts_kept=TABLE_ROWS)
        mark = self._settings.directory / "logged"
        before = int(mark.read_text()) if mark.exists() else 0
        logged.define_metric("evaluations")
        logged.define_metric("*", step_metric="evaluations")
        while True:
            item = self._queue.get()
            if isinstance(item, _Close):
                self._finish(logged, history, item)
                return
            if isinstance(item, _Figures):
                logged.log({**item.values, "evaluations": history.evaluations})
                continue
            history.add(item)
            told = item.event
            if not isinstance(told, Evaluated) or told.cached or told.is_final:
                continue
            if item.number > before:
                logged.log(_step(history, told))
                mark.write_text(str(item.number))

    def _started(self) -> wandb.Run:
        settings, search = self._settings, self._run.settings
        settings.directory.mkdir(parents=True, exist_ok=True)
        tags = [self._run.task.name, search.algorithm, f"seed-{search.seed}", settings.gpu]
        return wandb.init(
            project=settings.project,
            entity=settings.entity or None,
            dir=settings.directory,
            id=_own_id(settings.directory),
            name=self._run.name,
            group=settings.group or None,
            tags=[tag[-64:] for tag in tags if tag],
            config={**dict(self._run.config), "task": self._run.task.name, "search": codec.encode(search)},
            mode=settings.mode,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                x_disable_meta=True,  # it holds the command line, in which a key may stand
                x_disable_stats=True,
                init_timeout=settings.init_timeout_s,
            ),
        )

    def _finish(self, logged: wandb.Run, history: History, close: _Close) -> None:
        table = wandb.Table(columns=TABLE_COLUMNS, data=[_table_row(n) for n in history.shown(TABLE_ROWS)])
        logged.log({"candidates": table, "evaluations": history.evaluations})
        logged.summary.update({**_totals(history), "ended": history.ended or "not ended"})
        for kind, path in (("kernel", close.kernel), ("report", close.report)):
            if path is not None:
                artifact = wandb.Artifact(f"{kind}-{logged.id}", type=kind)
                artifact.add_file(str(path))
                logged.log_artifact(artifact)


def _own_id(directory: Path) -> str:
    """Random, since folders of the same name are other runs; the same in every session."""
    path = directory / "id"
    if not path.exists():
        path.write_text(secrets.token_hex(8))
    return path.read_text()


def _totals(history: History) -> dict[str, float]:
    """The figures after the last evaluation, by the names that the dashboard draws."""
    outcomes = {f"outcomes/{name}": float(number) for name, number in history.by_outcome.items()}
    best = {"best/speedup": history.best.speedup} if history.best and history.best.speedup else {}
    if history.best and history.best.ci:
        best |= {"best/ci_low": history.best.ci[0], "best/ci_high": history.best.ci[1]}
    return {
        "evaluations": history.evaluations,
        "proposals": history.proposals,
        "minutes": history.minutes,
        "busy_fraction": history.busy_fraction,
        "usd": history.usd,
        "tokens": history.tokens,
        **best,
        **outcomes,
    }


def _step(history: History, event: Evaluated) -> dict[str, float]:
    return {**_totals(history), "current/speedup": score(event.result.outcome)}


def _table_row(node: Node) -> list[str | float | None]:
    low, high = node.ci or (None, None)
    candidate = node.candidate
    return [
        candidate.id,
        candidate.parent or "",
        node.status,
        node.speedup,
        low,
        high,
        candidate.proposer,
        candidate.note,
        candidate.source,
    ]
