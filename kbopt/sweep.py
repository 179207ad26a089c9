"""Many searches over one evaluator: tasks x algorithms x seeds, in one folder.

The folder holds `sweep.json` (what to run), `evaluations.sqlite` (results by content), and a run's
folder for each search. Starting a sweep that is under way attaches to it; starting one whose actors are
gone goes on with it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from kbopt.backends.opening import Reminder, Waiting
from kbopt.cluster.messages import CoordinatorStatus, EvaluatorStatus, SearchSpec
from kbopt.cluster.session import ClusterSettings, Session
from kbopt.compose.backends import prepare_backend
from kbopt.compose.checks import check
from kbopt.compose.lessons import with_lessons
from kbopt.compose.searches import factories, search_spec
from kbopt.config import BackendConfig, ProposerConfig, RunConfig
from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.protocol import EvalProtocol, Verdict
from kbopt.core.raising import LIMITS
from kbopt.core.raising import in_force as settings_in_force
from kbopt.core.scoring import fast_p_by_threshold
from kbopt.core.settings import Algorithm, SearchSettings
from kbopt.core.spending import Shared, Spend, first_part
from kbopt.core.task import Task
from kbopt.driver import stays_warm
from kbopt.finish import Finished, finish, open_run, run_document, write_atomically
from kbopt.finish import load as load_run
from kbopt.reporting.comparison import best_speedup, compare, markdown
from kbopt.reporting.report import write_report
from kbopt.store.journal import JournalReader, SqliteJournal

T = TypeVar("T")

POLL_S = 1.0
STOP_FILE = "stop"
"""While this file is in the sweep's folder, its searches rest."""
_MOST_VALUES = 80
"""Characters of two values at most that a message shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepConfig:
    """What a sweep runs. `settings` holds for every search but for its algorithm and seed.

    Unless `shares_results` each search measures for itself, as a comparison at equal budgets needs. `spend`
    says whether each has the evaluations and dollars of `settings`, or all together as many, where they are
    worth most.
    """

    name: str
    tasks: tuple[Task, ...]
    algorithms: tuple[Algorithm, ...]
    seeds: tuple[int, ...]
    settings: SearchSettings = SearchSettings()
    protocol: EvalProtocol = EvalProtocol()
    backend: BackendConfig = BackendConfig()
    proposer: ProposerConfig = ProposerConfig()
    explorers: int = 8
    parallel_searches: int = 8
    shares_results: bool = False
    verdict: Verdict = "strict"
    spend: Spend = "evenly"

    @property
    def shared(self) -> Shared | None:
        """What all searches may use together; None where each has a budget of its own."""
        if self.spend == "evenly":
            return None
        each, num = self.settings.budget, len(list(self.runs()))
        return Shared(
            evaluations=None if each.evaluations is None else each.evaluations * num,
            usd=None if each.usd is None else each.usd * num,
        )

    def runs(self) -> Iterator[RunConfig]:
        """One run for each task, algorithm and seed, tasks varying slowest; what is named twice runs once."""
        labels = _labels(self.tasks)
        settings, budget = self.settings, self.settings.budget
        if self.spend == "headroom":
            part = replace(
                budget,
                evaluations=None if budget.evaluations is None else first_part(budget.evaluations),
                usd=None if budget.usd is None else budget.usd / 2,
                grows=True,
            )
            settings = replace(settings, budget=part)
        for task, algorithm, seed in itertools.product(
            labels, dict.fromkeys(self.algorithms), dict.fromkeys(self.seeds)
        ):
            yield RunConfig(
                name=f"{labels[task]}-{algorithm}-s{seed}",
                task=task,
                settings=replace(settings, algorithm=algorithm, seed=seed),
                protocol=self.protocol,
                backend=self.backend,
                proposer=self.proposer,
                explorers=self.explorers,
                verdict=self.verdict,
            )


def _labels(tasks: tuple[Task, ...]) -> dict[Task, str]:
    """A name for a folder for each task: a file's own name, its whole path where two files share that."""
    short = {task: _label(task.short_name) for task in tasks}
    labels: dict[Task, str] = {}
    for task, own in short.items():
        is_alone = list(short.values()).count(own) == 1 or not task.is_path
        label = own if is_alone else _label(task.name.removesuffix(".py")).strip("-")
        labels[task] = f"{label}-{task.key[:8]}" if label in labels.values() else label
    return labels


def _label(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name)


def prepare(config: SweepConfig, folder: Path, *, on_cluster: bool = False) -> tuple[SearchSpec, ...]:
    """Make the folder, or check that it holds this very sweep. Raises `UserError` where it holds another."""
    description = folder / "sweep.json"
    if not description.exists():
        for run in config.runs():
            check(run, on_this_machine=not on_cluster)
    describe(description, replace(config, proposer=config.proposer.without_secrets), "sweep")
    specs = []
    for asked in config.runs():
        run, place = asked, (folder / asked.name).resolve()
        journal = place / "journal.sqlite"
        if journal.exists():
            run = replace(run, lessons=load_run(place).lessons)
        else:
            run = with_lessons(run)
            SqliteJournal.create(journal, codec.dumps(run.without_secrets)).close()
        specs.append(search_spec(run, place, shares_results=config.shares_results))
    return tuple(specs)


def load(folder: Path) -> SweepConfig:
    """The sweep in `folder`. Raises `UserError` where there is none."""
    return described(folder / "sweep.json", SweepConfig, "sweep")


def in_force(config: SweepConfig, folder: Path) -> SweepConfig:
    """`config` with the limits that were raised in `folder` since; where searches differ, the largest."""
    found = [config.settings]
    for run in config.runs():
        journal = folder / run.name / "journal.sqlite"
        if journal.exists():
            with JournalReader(journal) as reader:
                found.append(settings_in_force(config.settings, reader.raises()))
    return replace(config, settings=max(found, key=lambda one: [limit.of(one) or 0.0 for limit in LIMITS]))


def describe(description: Path, config: Any, what: str) -> None:
    """Write `config` into the folder of a `what`, or check that it is what is written there.

    Raises `UserError` where the folder holds another one.
    """
    folder = description.parent
    if description.exists():
        known = described(description, type(config), what)
        if known != config:
            raising = " To raise a limit, give `kbopt sweep resume` with it." if what == "sweep" else ""
            raise UserError(
                f"{folder} holds a {what} with other settings ({'; '.join(_differences(known, config))}). "
                f"Choose another --name, or repeat the options that it was started with.{raising}"
            )
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(description, codec.dumps(config))
    except (OSError, InfraError) as error:
        raise UserError(f"cannot make {folder}: {error}. Choose a writable folder with --out.") from None


def _differences(known: object, given: object, place: str = "") -> Iterator[str]:
    """Yield each setting that differs, with both values if they are short."""
    if known == given:
        return
    if is_dataclass(known) and type(known) is type(given):
        for field in fields(known):
            inner = f"{place}.{field.name}".lstrip(".")
            yield from _differences(getattr(known, field.name), getattr(given, field.name), inner)
        return
    both = f"{known!r} there, {given!r} now"
    yield f"{place}: {both}" if len(both) <= _MOST_VALUES else place


def described(description: Path, kind: type[T], what: str) -> T:
    """What `describe` wrote. Raises `UserError` where it wrote nothing."""
    if not description.is_file():
        raise UserError(f"no {what} in {description.parent}: it has no {description.name}")
    return codec.loads(kind, description.read_bytes(), description)


def drive(
    config: SweepConfig,
    folder: Path,
    *,
    address: str | None,
    nodes: int = 1,
    on_status: Callable[[CoordinatorStatus, EvaluatorStatus], None],
    say: Callable[[str], None],
) -> CoordinatorStatus:
    """Run the sweep, or attach to it where it is under way, until every search has ended or failed.

    Without `address` the actors live in this process's own Ray; with it the sweep starts once the cluster has
    `nodes` nodes. Raises `KeyboardInterrupt` after Ctrl-C or SIGTERM: on one machine the sweep stops and can
    be gone on with, on a cluster it goes on without its driver.
    """
    specs = prepare(config, folder, on_cluster=address is not None)
    prepare_backend(config.backend, say)
    cluster = ClusterSettings(
        address=address,
        nodes=nodes,
        explorers=config.explorers,
        parallel_searches=config.parallel_searches,
        stop_file=(folder / STOP_FILE).resolve(),
        shared=in_force(config, folder).shared,
        fingerprint=fingerprint(config, folder),
        device_fingerprint=fingerprint(config.backend),
    )
    parts = factories(config.backend, config.proposer, folder)
    cache = (folder / "evaluations.sqlite").resolve()
    with Session(config.name, specs, parts, cache, cluster, say) as session:
        try:
            waiting = Waiting(say)
            session.open_device(lambda evaluator: waiting(evaluator.backend))
            remind = Reminder(say)
            while True:
                status, evaluator = session.status(), session.evaluator_status()
                remind(evaluator.backend)
                on_status(status, evaluator)
                if status.finished:
                    break
                time.sleep(POLL_S)
            if note := stays_warm(config.backend, session.evaluator_status().backend):
                say(note)
        except KeyboardInterrupt:
            if address is None:
                with suppress(InfraError):  # a dead actor: the journals are whole anyway
                    session.stop("interrupted", end=False)
            raise
        session.stop("done", end=False)
    return status


def finish_all(config: SweepConfig, folder: Path) -> tuple[Finished, ...]:
    """Finish every search: best kernels and reports, as far as they got."""
    return tuple(finish(folder / run.name) for run in config.runs())


def write_page(config: SweepConfig, folder: Path) -> Path:
    """One page about all searches of the sweep, beside `sweep.json`."""
    with ExitStack() as stack:
        opened = [stack.enter_context(open_run(folder / run.name)) for run in config.runs()]
        return write_report(opened, folder / "report.html")


def write_results(
    config: SweepConfig, folder: Path, document: Mapping[str, object]
) -> tuple[Path, Path, Path]:
    """`document` as `results.json`; `results.jsonl`, a line for each search; `table.md`, their speedups."""
    searches = finish_all(config, folder)
    whole, lines, table = folder / "results.json", folder / "results.jsonl", folder / "table.md"
    write_atomically(whole, json.dumps(document, indent=1))
    write_atomically(lines, "".join(f"{json.dumps(run_document(search))}\n" for search in searches))
    write_atomically(table, markdown(compare([search.summary for search in searches])) + "\n")
    return whole, lines, table


def sweep_document(
    config: SweepConfig, searches: tuple[Finished, ...], seconds: float
) -> Mapping[str, object]:
    """The JSON of `kbopt sweep`. `seconds` is the wall clock of the whole sweep."""
    documents = [run_document(search) for search in searches]
    device_s = sum(search.summary.busy_fraction * search.summary.seconds for search in searches)
    boots = {boot for search in searches for boot in search.summary.cold_boots}
    return {
        "sweep": config.name,
        "shared_results": config.shares_results,
        "searches": documents,
        "cold_starts": len(boots),
        "gpu_busy_fraction": min(1.0, device_s / seconds) if seconds else 0.0,
        "evaluations": sum(search.summary.evaluations for search in searches),
        "usd": sum(search.summary.usd for search in searches),
        "tokens": sum(search.summary.tokens for search in searches),
        "seconds": seconds,
        "fast_p": fast_p_by_threshold([best_speedup(search.summary) for search in searches]),
        "algorithms": codec.encode(compare([search.summary for search in searches]).algorithms),
    }


def fingerprint(config: SweepConfig | BackendConfig, folder: Path | None = None) -> str:
    """Equal for equal configurations, and for a sweep in the same folder: there its results go."""
    place = str(folder.resolve()) if folder else ""
    return hashlib.sha256(f"{codec.dumps(config)}{place}".encode()).hexdigest()[:16]
