"""One search from its folder: create it, run it with live progress, go on with it, finish it.

A run's folder holds `journal.sqlite` (everything), `evaluations.sqlite` (results by content),
`best.py`, `report.html`, `transcripts/` where a language model or an agent was asked, and `agents/` with the
agents' folders.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from kbopt.backends.opening import Reminder
from kbopt.cluster.messages import EvaluatorStatus, Failure, SearchStatus
from kbopt.cluster.session import ClusterSettings, Session
from kbopt.compose.backends import prepare_backend
from kbopt.compose.checks import check
from kbopt.compose.searches import factories, search_spec
from kbopt.config import BackendConfig, RunConfig
from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.events import Asked
from kbopt.core.ports import BackendStatus
from kbopt.core.spending import Shared
from kbopt.reporting.progress import ProgressSnapshot
from kbopt.reporting.terminal import ProgressView
from kbopt.store.journal import JournalReader, SqliteJournal

POLL_S = 0.5

Follow = Callable[[], None]
"""Called every `POLL_S` seconds and once at the end, for example to log what the journal gained."""


def default_name(config: RunConfig) -> str:
    """A readable, unused name: `20261123-224800-quick-gelu-PS-s0`."""
    task = re.sub(r"[^A-Za-z0-9]+", "-", config.task.short_name)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return f"{stamp}-{task.strip('-')}-{config.settings.algorithm}-s{config.settings.seed}"


def create(config: RunConfig, folder: Path) -> None:
    """Check `config` and make the run's folder. Raises `UserError`; nothing there is overwritten."""
    check(config)
    if folder.exists() and any(folder.iterdir()) and not (folder / "journal.sqlite").exists():
        raise UserError(f"{folder} exists and is not empty. Choose another --out.")
    SqliteJournal.create(folder / "journal.sqlite", codec.dumps(config.without_secrets)).close()


def drive(config: RunConfig, folder: Path, view: ProgressView, followers: Sequence[Follow] = ()) -> None:
    """Run the search in `folder` to its end, from wherever its journal stands.

    Raises `UserError` or `InfraError` for what stopped it early, `KeyboardInterrupt` after Ctrl-C or SIGTERM;
    what was measured until then is in the folder.
    """
    prepare_backend(config.backend, view.note)
    if config.proposer.name == "agent" and not config.proposer.starts_agents:
        config = _without_its_agent(config, folder)
    spec = search_spec(config, folder.resolve())
    budget = config.settings.budget
    # A search of a sweep that is gone on with by itself: it uses what it was granted, and nobody grants more.
    shared = Shared(evaluations=budget.evaluations, usd=budget.usd) if budget.grows else None
    cluster = ClusterSettings(explorers=config.explorers, shared=shared)
    cache = folder.resolve() / "evaluations.sqlite"
    parts = factories(config.backend, config.proposer, folder)
    with Session(config.name, (spec,), parts, cache, cluster) as session:
        try:
            session.open_device(lambda evaluator: view.update(_opening(config, evaluator)))
            failure = _watch(session, config, view, followers)
        except KeyboardInterrupt:
            with suppress(InfraError):  # a second Ctrl-C or a dead actor: the journal is whole anyway
                session.stop("interrupted", end=False)
            raise
        session.stop("done", end=False)
    if failure is not None:
        raise (UserError if failure.kind == "user" else InfraError)(failure.message)


def _without_its_agent(config: RunConfig, folder: Path) -> RunConfig:
    """The run of an agent that is gone: what it proposed is measured, and nobody proposes more."""
    with JournalReader(folder / "journal.sqlite") as journal:
        num_asked = sum(isinstance(entry.event, Asked) for entry in journal.entries())
    return replace(config, settings=replace(config.settings, num_steps=max(num_asked, 1)))


def _watch(
    session: Session, config: RunConfig, view: ProgressView, followers: Sequence[Follow]
) -> Failure | None:
    remind = Reminder(view.note)
    while True:
        status = session.status()
        evaluator = session.evaluator_status()
        remind(evaluator.backend)
        view.update(snapshot(status.searches[0], evaluator))
        for follow in followers:
            follow()
        if status.finished:
            if note := stays_warm(config.backend, evaluator.backend):
                view.note(note)
            return status.searches[0].failure
        time.sleep(POLL_S)


def stays_warm(config: BackendConfig, status: BackendStatus) -> str:
    """What a container that nobody uses any more may cost and how to end it; empty where none is rented."""
    if not status.idle_usd:
        return ""
    defaults = BackendConfig()
    changed = [n for n in ("gpus", "lane", "warm_minutes") if getattr(config, n) != getattr(defaults, n)]
    options = [f"--{name.replace('_', '-')} {getattr(config, name)}" for name in changed]
    return (
        f"The container stays warm for the next run: {config.warm_minutes:g} minutes, at most "
        f"${status.idle_usd:.2f}. End it with: {' '.join(['kbopt modal stop --gpu', config.gpu, *options])}"
    )


def snapshot(search: SearchStatus, evaluator: EvaluatorStatus) -> ProgressSnapshot:
    """What the progress view shows of a search."""
    progress, budget = search.progress, search.budget
    return ProgressSnapshot(
        run=search.name,
        task=search.task,
        algorithm=search.algorithm,
        elapsed_s=search.elapsed_s,
        proposals=progress.proposals,
        max_proposals=search.max_proposals,
        evaluations=progress.evaluations,
        max_evaluations=budget.evaluations,
        best=search.best,
        by_outcome=progress.by_outcome,
        busy_fraction=search.device_s / search.elapsed_s if search.elapsed_s else 0.0,
        backend_state=evaluator.backend.state,
        backend_boot=evaluator.backend.boot,
        backend_age_s=evaluator.backend.age_s,
        backend_detail=evaluator.backend.detail,
        cached=progress.cached,
        dropped=progress.dropped,
        failed=progress.proposal_failures,
        attempts=progress.attempts,
        in_flight=progress.in_flight,
        evaluating=evaluator.in_flight,
        queue_length=evaluator.queue_length,
        phases=evaluator.backend.phases,
        usd=progress.usd,
        tokens=progress.tokens,
        max_usd=budget.usd,
        max_tokens=budget.tokens,
        max_minutes=budget.minutes,
    )


def _opening(config: RunConfig, evaluator: EvaluatorStatus) -> ProgressSnapshot:
    """The view while the device is being started: nothing has been asked yet."""
    return ProgressSnapshot(
        run=config.name,
        task=config.task.name,
        algorithm=config.settings.algorithm,
        elapsed_s=evaluator.uptime_s,
        proposals=0,
        evaluations=0,
        max_evaluations=config.settings.budget.evaluations,
        best=None,
        by_outcome={},
        busy_fraction=0.0,
        backend_state=evaluator.backend.state,
        backend_detail=evaluator.backend.detail,
    )
