"""What a run leaves for its user: the best kernel as a file, the report, the table, the JSON."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kbopt.compose.lessons import add_to_library
from kbopt.config import BackendConfig, RunConfig, transcripts
from kbopt.core import codec
from kbopt.core.errors import InfraError
from kbopt.core.events import Attempted, Entry, Proposed, has_ended
from kbopt.core.protocol import EvalProtocol
from kbopt.proposers.transcripts import Transcripts
from kbopt.reporting.live import Source
from kbopt.reporting.report import write_report
from kbopt.reporting.run import Run
from kbopt.reporting.summary import RunSummary, summarize
from kbopt.store.journal import JournalReader
from kbopt.tasks import precision_of

if TYPE_CHECKING:
    from rich.console import Console

EVAL_OPTIONS = {
    "--backend": "name",
    "--device": "device",
    "--spool": "spool",
    "--gpu": "gpu",
    "--trials": "trials",
    "--timed": "timed",
    "--precision": "precision",
    "--torch-ops": "torch_ops",
    "--arithmetic": "arithmetic",
    "--outputs": "outputs",
    "--baseline": "baseline",
    "--clock": "clock",
    "--eval-mode": "eval_mode",
    "--backward": "backward",
    "--timeout": "timeout_s",
}
"""The options of `kbopt eval` that decide what is measured and where, and the fields that they set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A run's figures and where its files lie. `source` is None without a correct kernel."""

    summary: RunSummary
    source: Path | None
    journal: Path
    report: Path


def load(folder: Path) -> RunConfig:
    """The configuration of the run in `folder`."""
    with JournalReader(folder / "journal.sqlite") as journal:
        return codec.loads(RunConfig, journal.config, journal.path)


@contextmanager
def open_run(folder: Path) -> Iterator[Run]:
    """The run in `folder` for reading; its entries are there within the context."""
    config = load(folder).without_secrets
    with JournalReader(folder / "journal.sqlite") as journal:
        yield Run(
            name=config.name,
            task=config.task,
            settings=config.settings,
            config=codec.encode(config),
            entries=journal.entries(),
            transcripts=functools.partial(conversation, folder),
            reproduce=shlex.join(["kbopt", "eval", "--run", str(folder)]),
            reproduce_elsewhere=_eval_command(config),
            setup=_setup(config),
        )


def _setup(config: RunConfig) -> dict[str, str]:
    proposer = config.proposer
    asked = {"models": proposer.models, "language": proposer.language or ""} if proposer.models else {}
    if proposer.asks_models:
        asked["strategies"] = "first briefs" if config.settings.strategies else "none"
        asked["lessons"] = "of a library" if config.lessons else "none"
    return {"proposer": proposer.name, **asked, "protocol": config.protocol.id}


def _eval_command(config: RunConfig) -> str:
    """Judges `best.py` as the run did, without the run's folder: every option that is not the default."""
    words = ["kbopt", "eval", "--task", config.task.name, "--kernel", "best.py"]
    protocol = EvalProtocol()
    protocol = replace(protocol, precision=precision_of(config.task.source) or protocol.precision)
    for given, default in ((config.backend, BackendConfig()), (config.protocol, protocol)):
        for option, field in EVAL_OPTIONS.items():
            value = getattr(given, field, None)
            if value is True:
                words.append(option)
            elif value is not None and value != getattr(default, field):
                words += [option, str(value)]
    return shlex.join(words)


def follow_run(folder: Path) -> tuple[Run, Source]:
    """The run in `folder`, and what its journal gained after an entry's number, from any thread."""

    def entries_after(number: int) -> tuple[Entry, ...]:
        with JournalReader(folder / "journal.sqlite") as reader:
            return tuple(reader.entries(after=number))

    with open_run(folder) as run:
        return run, entries_after


def finish(folder: Path) -> Finished:
    """Write `best.py` and `report.html` from the journal, and sum the run up. May be called again."""
    with open_run(folder) as run:
        summary = summarize(run)
    source = None
    if summary.best is not None:
        source = folder / "best.py"
        write_atomically(source, candidate_source(folder, summary.best.candidate))
    with open_run(folder) as run:
        report = write_report([run], folder / "report.html")
    return Finished(summary=summary, source=source, journal=folder / "journal.sqlite", report=report)


def keep_lessons(folder: Path) -> int:
    """Add to the run's library what it taught, if it has one and is over; how many lessons were new.

    May be called again. Raises `UserError` where the library cannot be used.
    """
    config = load(folder)
    if not config.proposer.library:
        return 0
    with JournalReader(folder / "journal.sqlite") as journal:
        events = [entry.event for entry in journal.entries()]
    return add_to_library(config, events) if has_ended(events) else 0


def candidate_source(folder: Path, candidate: str) -> str:
    """The source of `candidate` as it was proposed. Raises `KeyError` for an unknown one."""
    with JournalReader(folder / "journal.sqlite") as journal:
        for entry in journal.entries():
            if isinstance(entry.event, Proposed | Attempted) and entry.event.candidate.id == candidate:
                return entry.event.candidate.source
    raise KeyError(candidate)


def conversation(folder: Path, brief: str) -> str | None:
    """What a language model or an agent was asked for `brief` and what it said, as text; None where none was.

    An agent's attempt has the conversation of its brief.
    """
    transcript = Transcripts(transcripts(folder)).latest(brief.partition("-")[0])
    return transcript.text if transcript else None


def run_document(finished: Finished) -> dict[str, object]:
    """The JSON of `kbopt run`."""
    summary, best = finished.summary, finished.summary.best
    return {
        "run": summary.run,
        "task": summary.task,
        "algorithm": summary.algorithm,
        "seed": summary.seed,
        "best": {
            "candidate": best.candidate,
            "speedup": best.speedup,
            "speedup_ci": list(best.speedup_ci),
            "state": best.state,
            "kernel_ms": best.kernel_ms,
            "reference_ms": best.reference_ms,
            "ranked_over": best.ranked_over,
            "speedups": [codec.fields_of(speedup) for speedup in best.speedups],
            "strongest": codec.fields_of(best.strongest) if best.strongest else None,
            "kernelbench": codec.fields_of(best.kernelbench) if best.kernelbench else None,
            "equal_code": codec.fields_of(best.equal_code) if best.equal_code else None,
            "workloads": [codec.fields_of(workload) for workload in best.workloads],
            "source_path": str(finished.source),
        }
        if best
        else None,
        "evaluations": summary.evaluations,
        "proposals": summary.proposals,
        "by_outcome": dict(summary.by_outcome),
        "cold_starts": summary.cold_starts,
        "gpu_busy_fraction": summary.busy_fraction,
        "usd": summary.usd,
        "tokens": summary.tokens,
        "seconds": summary.seconds,
        "ended": summary.ended,
        "raised": [codec.fields_of(one) for one in summary.raised],
        "models": [codec.encode(model) for model in summary.models],
        "containers": [codec.encode(rent) for rent in summary.containers],
        "journal": str(finished.journal),
        "report": str(finished.report),
    }


def print_result(finished: Finished, console: Console) -> None:
    """The final table, and the commands that come next."""
    from kbopt.reporting.final_table import print_outcome

    files = {"journal": str(finished.journal), "report": str(finished.report)}
    if finished.source:
        files = {"kernel": str(finished.source), **files}
    print_outcome(console, finished.summary, files, str(finished.journal.parent))


def write_atomically(path: Path, text: str) -> None:
    """Write `text` so that a reader sees the old file or the new one, never a part.

    Raises `InfraError` when the disk is full or gone.
    """
    draft = path.with_suffix(path.suffix + ".part")
    try:
        draft.write_text(text, encoding="utf-8", errors="surrogatepass")
        draft.replace(path)
    except OSError as error:
        raise InfraError(f"cannot write {path}: {error}") from error
