"""Sessions of agents: what each may judge, how much, and its runs. One evaluator serves all of them."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from kbopt.agents.answers import checked
from kbopt.agents.run import AgentRun, settings
from kbopt.cluster.evaluator import EvaluationQueue
from kbopt.compose.backends import open_backend
from kbopt.config import BackendConfig, ProposerConfig, RunConfig
from kbopt.core.errors import InfraError, UserError, unknown_name
from kbopt.core.outcomes import Measured, outcome_name
from kbopt.core.profile import NotProfiled, Profile
from kbopt.core.proposals import MAX_NOTE_CHARS, Trial
from kbopt.core.protocol import EvalProtocol
from kbopt.core.settings import Budget
from kbopt.core.tally import amount
from kbopt.core.task import Task
from kbopt.finish import Finished
from kbopt.store.cache import EvaluationCache
from kbopt.tasks import precision_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a server lets its sessions do.

    `tasks` loads each task by the name that agents give. `budget` is that of one session: `evaluations`,
    `usd` and `minutes`. With `states_precision` the protocol's own precision holds for tasks that state
    another.
    """

    tasks: Mapping[str, Callable[[], Task]]
    backend: BackendConfig
    protocol: EvalProtocol
    budget: Budget
    out: Path
    states_precision: bool = False


@dataclass(eq=False, slots=True)
class Session:
    """One agent's work. Its clock runs from its first call on."""

    offer: Offer
    queue: EvaluationQueue
    runs: dict[str, AgentRun] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def evaluations_left(self) -> int | None:
        """None without a limit."""
        limit = self.offer.budget.evaluations
        used = sum(run.num_evaluations for run in self.runs.values())
        return None if limit is None else max(limit - used, 0)

    @property
    def usd_left(self) -> float | None:
        """Dollars; None without a limit. What is under way is taken off once it has its answer."""
        limit = self.offer.budget.usd
        return None if limit is None else max(limit - sum(run.usd for run in self.runs.values()), 0.0)

    @property
    def minutes_left(self) -> float | None:
        """None without a limit."""
        limit = self.offer.budget.minutes
        return None if limit is None else max(limit - (time.monotonic() - self.started) / 60, 0.0)

    def task(self, name: str) -> Task:
        """The task called `name`. Raises `UserError` for one that this server does not offer."""
        if name not in self.offer.tasks:
            raise unknown_name("task", name[:100], self.offer.tasks)
        return self.offer.tasks[name]()

    def run(self, task: str = "") -> AgentRun:
        """The run of `task`, of the session's only one where none is named. Raises `UserError`."""
        if task:
            self.task(task)
        if not self.runs or (task and task not in self.runs):
            what = f"for {task}" if task else "in this session"
            raise UserError(
                f"nothing was evaluated {what} yet. Call evaluate with a task and a kernel first."
            )
        if not task and len(self.runs) > 1:
            raise UserError(f"this session has several tasks: name one of {', '.join(self.runs)} as `task`.")
        return self.runs[task or next(iter(self.runs))]

    async def evaluate(
        self, name: str, kernel: str, *, proposer: str, note: str = ""
    ) -> tuple[AgentRun, Trial]:
        """Judge `kernel`. Raises `UserError` for one that is not judged, `InfraError`."""
        task = self.task(name)
        source = checked(kernel, task)
        run = self.runs.get(name)
        if run is not None and run.submitted is not None:
            raise UserError(
                f"this session submitted {run.submitted} for {name}, and that answer stands. "
                "Start a new session to go on."
            )
        self._check_budget()
        if run is None:
            run = self.runs[name] = AgentRun.create(*self._new_run(task), self.queue)
        # Nothing is awaited between the check and this: calls at the same time cannot overdraw the budget.
        ready = run.propose(source, proposer=proposer, note=" ".join(note.split())[:MAX_NOTE_CHARS])
        return run, await run.evaluate(ready)

    async def profile(self, run: AgentRun, candidate: str) -> Profile:
        """What limits a kernel that was measured. Raises `UserError` for another one, `InfraError`."""
        trial = self._measured(run, candidate, "profiled")
        self._check_budget(of_evaluations=False)
        found = await run.profile(trial.candidate)
        if isinstance(found, NotProfiled):
            raise UserError(f"{candidate} could not be profiled: {found.reason}")
        return found

    async def submit(self, run: AgentRun, candidate: str) -> Finished:
        """End the run with `candidate` as its answer. Raises `UserError` for one that may not be."""
        self._measured(run, candidate, "submitted")
        if run.submitted not in (None, candidate):
            raise UserError(f"this session submitted {run.submitted} before, and that answer stands.")
        return await run.submit(candidate)

    async def close(self) -> None:
        """Close every run. What a full disk does not take, `kbopt resume` and `kbopt report` make later."""
        for run in self.runs.values():
            with suppress(InfraError, UserError):  # it must keep neither the next run nor the device alive
                await run.close()

    def _measured(self, run: AgentRun, candidate: str, what: str) -> Trial:
        """The trial of a kernel that was measured. Raises `UserError` for another one."""
        known = {trial.candidate.id: trial for trial in run.trials}
        if candidate not in known:
            raise unknown_name("candidate", candidate[:100], known)
        outcome = known[candidate].results[0].outcome
        if not isinstance(outcome, Measured):
            raise UserError(
                f"{candidate} is {outcome_name(outcome)}: only a kernel that was measured can be {what}. "
                "Call history for those, or best for the fastest."
            )
        return known[candidate]

    def _check_budget(self, *, of_evaluations: bool = True) -> None:
        """Raise `UserError` where nothing more is judged, or profiled, which takes no evaluation."""
        limits = self.offer.budget
        used = ""
        if of_evaluations and self.evaluations_left == 0:
            used = f"all {limits.evaluations} evaluations (--max-evals {limits.evaluations})"
        elif limits.usd is not None and self.usd_left == 0.0:
            used = f"all {amount(limits.usd)} dollars (--max-usd {limits.usd:g})"
        elif self.minutes_left == 0.0:
            used = f"all {limits.minutes:g} minutes (--minutes {limits.minutes:g})"
        if used:
            raise UserError(
                f"the budget of this session is used up: {used}. No more is judged; call best, then submit."
            )

    def _new_run(self, task: Task) -> tuple[RunConfig, Path]:
        words = re.sub(r"[^A-Za-z0-9]+", "-", task.short_name).strip("-")
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{words}-agent-{secrets.token_hex(2)}"
        protocol = self.offer.protocol
        if not self.offer.states_precision:
            protocol = replace(protocol, precision=precision_of(task.source) or protocol.precision)
        config = RunConfig(
            name=name,
            task=task,
            settings=settings("session", self.offer.budget),
            protocol=protocol,
            backend=self.offer.backend,
            proposer=ProposerConfig(name="agent"),
            explorers=1,
        )
        return config, self.offer.out / name


class Judge:
    """The sessions of one server and their evaluator; a context manager. Leaving it ends all of it."""

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        backend = open_backend(offer.backend, needs_sandbox=not offer.backend.no_sandbox)
        # In memory: the journals keep every result, and equal sources are looked for within one run alone.
        self._queue = EvaluationQueue(backend, EvaluationCache(Path(":memory:")))
        self._sessions: dict[str, Session] = {}

    def session(self, key: str) -> Session:
        """The session called `key`, which begins with its first call."""
        if key not in self._sessions:
            self._sessions[key] = Session(self.offer, self._queue)
        return self._sessions[key]

    async def waits(self) -> str:
        """What the evaluator does just now, in a line."""
        status = await self._queue.status()
        state, judging, queued = status.backend.state, status.in_flight, status.queue_length
        return f"device {state}; {judging} being judged, {queued} in the queue"

    async def __aenter__(self) -> Judge:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            for session in self._sessions.values():
                await session.close()
        finally:
            await self._queue.close()
