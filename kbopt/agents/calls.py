"""What a session may be asked, whoever asks: the tools of `kbopt mcp` and the calls of `kbopt serve`.

Each raises `UserError` for what the caller has to change and `InfraError` where the machine failed.
"""

from __future__ import annotations

from typing import Any

from kbopt.agents.answers import (
    Best,
    Evaluation,
    History,
    Judged,
    Submission,
    TaskRow,
    Tasks,
    figures,
    judged,
)
from kbopt.agents.evidence import Evidence, evidence
from kbopt.agents.run import AgentRun
from kbopt.agents.session import Session
from kbopt.core.errors import UserError
from kbopt.core.outcomes import Measured
from kbopt.core.proposals import Trial
from kbopt.core.workloads import shown_source
from kbopt.proposers.agent_desk import MAX_KERNEL_BYTES


def tasks(session: Session, name: str = "") -> Tasks:
    """The names of the tasks, or the source of the one called `name`."""
    offer, config = session.offer, session.offer.backend
    rows = (
        [TaskRow(name=name, source=shown_source(session.task(name).source))]
        if name
        else [TaskRow(name=each) for each in offer.tasks]
    )
    return Tasks(
        tasks=rows,
        device=f"{config.name}, {config.gpu if config.name == 'modal' else config.device}",
        max_kernel_bytes=MAX_KERNEL_BYTES,
        **_left(session),
    )


async def evaluate(session: Session, task: str, kernel: str, *, proposer: str, note: str = "") -> Evaluation:
    """The verdict on a kernel, in the journal of its run."""
    run, trial = await session.evaluate(task, kernel, proposer=proposer, note=note)
    found = run.best
    return Evaluation(
        **_judged(run, trial),
        feedback=trial.results[0].feedback,
        best=found.candidate.id if found else None,
        best_speedup=figures(found)["speedup"] if found else None,
        run=str(run.folder),
        **_left(session),
    )


def history(session: Session) -> History:
    """What the session evaluated, oldest first."""
    rows = [Judged(**_judged(run, trial)) for run in session.runs.values() for trial in run.trials]
    return History(evaluations=rows, **_left(session))


def best(session: Session, task: str = "") -> Best:
    """The fastest correct kernel of `task`, of the session's only one where none is named."""
    run = session.run(task)
    found = run.best
    if found is None:
        raise UserError(
            f"no kernel for {run.config.task.name} is correct yet: {len(run.trials)} were evaluated. "
            "Call history for the reasons."
        )
    return Best(**{**_judged(run, found), **figures(found)}, kernel=found.candidate.source)


async def profile(session: Session, candidate: str = "", against: str = "", task: str = "") -> Evidence:
    """What limits a kernel, the best where none is named, and what changed against another one."""
    run = session.run(task)
    chosen = candidate or _best_id(run, "profiled")
    parent = await session.profile(run, against) if against else None
    found = await session.profile(run, chosen)
    return evidence(run.config.task.name, chosen, found, parent, _left(session)["minutes_left"])


async def submit(
    session: Session,
    candidate: str = "",
    kernel: str = "",
    task: str = "",
    *,
    proposer: str,
    note: str = "",
) -> Submission:
    """Ends the work on a task with a candidate, or with `kernel`, which is evaluated first; else the best."""
    if candidate and kernel:
        raise UserError(f"both candidate {candidate[:100]!r} and a kernel were given: give one")
    chosen = candidate
    if kernel:
        name = task or session.run().config.task.name
        _, trial = await session.evaluate(name, kernel, proposer=proposer, note=note)
        chosen = trial.candidate.id
    run = session.run(task)
    chosen = chosen or run.submitted or _best_id(run, "submitted")
    done = await session.submit(run, chosen)
    final, winner = run.final(chosen), done.summary.best
    if winner is None:
        raise UserError(f"no kernel of {run.folder} passed the final measurement. See {done.report}.")
    outcome = final.outcome if final else None
    measured = outcome if isinstance(outcome, Measured) else None
    return Submission(
        candidate=chosen,
        task=run.config.task.name,
        speedup=measured.speedup if measured else None,
        speedup_ci=measured.speedup_ci if measured else None,
        faster=winner.faster,
        winner=winner.candidate,
        winner_speedup=winner.speedup,
        winner_speedup_ci=winner.speedup_ci,
        winner_file=str(done.source),
        report=str(done.report),
    )


def _best_id(run: AgentRun, what: str) -> str:
    if run.best is None:
        raise UserError(
            f"no kernel for {run.config.task.name} is correct yet, so none can be {what}. "
            "Call history for the reasons."
        )
    return run.best.candidate.id


def _left(session: Session) -> dict[str, Any]:
    minutes = session.minutes_left
    return {
        "evaluations_left": session.evaluations_left,
        "usd_left": session.usd_left,
        "minutes_left": None if minutes is None else round(minutes, 2),
    }


def _judged(run: AgentRun, trial: Trial) -> dict[str, Any]:
    return judged(trial, run.config.task.name, cached=run.was_cached(trial.candidate.id))
