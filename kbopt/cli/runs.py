"""`kbopt runs`, `show`, `export`, `report`, `watch`: look at what was found."""

from __future__ import annotations

import sys
import webbrowser
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbopt.cli.output import json_option
from kbopt.cli.values import OutFile, RunFolder
from kbopt.core.errors import UserError
from kbopt.core.events import (
    Asked,
    Attempted,
    CandidateProfiled,
    Dropped,
    Entry,
    Evaluated,
    FullForgone,
    Proposed,
)

_PAGE = b"<!doctype html>"
"""How kbopt's pages begin."""

if TYPE_CHECKING:
    from kbopt.reporting.listing import RunRow
    from kbopt.reporting.records import Node
    from kbopt.reporting.run import Run
    from kbopt.reporting.summary import RunSummary


@click.command(short_help="List the runs in a folder, newest first.")
@click.argument("folder", type=click.Path(path_type=Path), default=Path("runs"))
@json_option
def runs(folder: Path, as_json: bool) -> None:
    """List the runs in FOLDER (default runs/), newest first."""
    if not folder.is_dir() and folder != Path("runs"):
        raise UserError(f"{folder} is no folder. Without FOLDER the runs in runs/ are listed.")
    from rich.console import Console

    from kbopt.cli.output import print_json
    from kbopt.reporting.listing import print_runs

    folders = [path.parent for path in folder.glob("**/journal.sqlite")]
    if as_json:
        found = sorted(_summaries(folders), key=lambda item: -item[1].started)
        print_json(
            [
                {
                    "run": summary.run,
                    "folder": str(where),
                    "task": summary.task,
                    "algorithm": summary.algorithm,
                    "seed": summary.seed,
                    "evaluations": summary.evaluations,
                    "speedup": summary.best.speedup if summary.best else None,
                    "speedup_ci": list(summary.best.speedup_ci) if summary.best else None,
                    "headline": summary.best.state if summary.best else None,
                    "ended": summary.ended,
                }
                for where, summary in found
            ]
        )
        return
    print_runs(Console(), sorted(run_rows(folders), key=lambda row: -row.started))


def run_rows(folders: Sequence[Path], when_open: str = "open: kbopt resume {}") -> list[RunRow]:
    """A line of `kbopt runs` for each folder; `when_open` is the state of one that has not ended."""
    from kbopt.reporting.listing import RunRow

    return [
        RunRow(
            name=str(where),
            task=summary.task,
            algorithm=summary.algorithm,
            seed=summary.seed,
            evaluations=summary.evaluations,
            best=summary.best,
            state=summary.ended or when_open.format(where),
            started=summary.started,
        )
        for where, summary in _summaries(folders)
    ]


def _summaries(folders: Sequence[Path]) -> list[tuple[Path, RunSummary]]:
    from kbopt.finish import open_run
    from kbopt.reporting.summary import summarize

    found = []
    for folder in folders:
        try:
            with open_run(folder) as run:
                found.append((folder, summarize(run)))
        except UserError as error:  # one journal that cannot be read must not hide the others
            click.echo(f"kbopt: left out: {error}", err=True)
    return found


@click.command(short_help="Show a candidate: figures, source, diff, feedback.")
@click.argument("run", type=RunFolder())
@click.argument("candidate", default="best")
@click.option("--transcript", is_flag=True, help="Show what a language model was asked and answered instead.")
def show(run: Path, candidate: str, transcript: bool) -> None:
    """Show CANDIDATE of RUN: figures, source, diff to its parent, feedback.

    RUN is a run's folder, or its name in runs/ or sweeps/. CANDIDATE is `best` (the default) or an id such as
    c000012. With --transcript it may also be the id of a proposal that failed.
    """
    from rich.console import Console

    from kbopt.finish import open_run
    from kbopt.reporting.listing import print_candidate

    with open_run(run) as opened:
        if transcript and candidate != "best":
            _print_conversation(opened, candidate)
            return
        node, parent = _find(run, opened, candidate)
    if transcript:
        _print_conversation(opened, node.candidate.id)
        return
    print_candidate(
        Console(),
        node.trial,
        parent_source=parent.candidate.source if parent else None,
        status=node.status,
        strategy=node.strategy,
        profiles=node.profiles,
    )


def _print_conversation(run: Run, brief: str) -> None:
    """What a model was asked and answered for `brief`. Raises `UserError` where none was asked."""
    from rich.console import Console

    from kbopt.reporting.listing import print_transcript

    text = run.transcripts(brief)
    if text is None:
        raise UserError(f"{run.name} keeps no conversation about {brief}: no language model wrote it.")
    print_transcript(Console(), brief, text)


def _find(run: Path, opened: Run, candidate: str) -> tuple[Node, Node | None]:
    """The candidate, `best` or an id, and its parent, with their texts."""
    from kbopt.reporting.history import fold
    from kbopt.store.journal import JournalReader

    history = fold(opened.entries)
    node = history.best if candidate == "best" else history.nodes.get(candidate)
    if node is None:
        if candidate == "best":
            raise UserError(f"{run} has no correct kernel")
        raise UserError(_no_candidate(candidate, run, list(history.nodes)))
    # The texts of a long run's slower candidates are not held: they are read once more.
    wanted = {node.candidate.id, node.candidate.parent}
    with JournalReader(run / "journal.sqlite") as journal:
        found = fold(_of(wanted, journal.entries()))
    return found.nodes[node.candidate.id], found.nodes.get(node.candidate.parent or "")


def _of(candidates: Collection[str | None], entries: Iterable[Entry]) -> Iterator[Entry]:
    """The entries about some candidates' briefs, sources and results."""
    briefs = {one.partition("-")[0] for one in candidates if one}
    for entry in entries:
        match entry.event:
            case Asked(brief=brief) if brief in briefs:
                yield entry
            case Proposed(candidate=proposed) | Attempted(candidate=proposed) if proposed.id in candidates:
                yield entry
            case (
                Evaluated(candidate=name)
                | FullForgone(candidate=name)
                | Dropped(candidate=name)
                | CandidateProfiled(candidate=name)
            ) if name in candidates:
                yield entry


@click.command(short_help="Write a kernel as a file that is ready to import.")
@click.argument("run", type=RunFolder())
@click.option("--kernel", default="best", show_default=True, help="`best`, or a candidate's id.")
@click.option("--out", type=OutFile(), help="A file. Default: stdout.")
def export(run: Path, kernel: str, out: Path | None) -> None:
    """Write a kernel of RUN, a folder or a name in runs/ or sweeps/, as a file that is ready to import.

    The file says where the kernel comes from, and refuses to be trained through where its backward was not
    judged.
    """
    from kbopt.evaluation.kernelbench.signature import describe_inputs
    from kbopt.finish import load, open_run, write_atomically
    from kbopt.reporting.exported import exported

    with open_run(run) as opened:
        node, _ = _find(run, opened, kernel)
    text = exported(
        opened,
        node.trial,
        folder=str(run),
        inputs=describe_inputs(opened.task.source),
        backward=load(run).protocol.backward,
    )
    if out is None:
        click.echo(text, nl=False)
        return
    if out.exists():
        raise UserError(f"{out} exists; choose another --out")
    write_atomically(out, text)
    click.echo(f"{out}: use it with `from {out.stem} import ModelNew`; check it with")
    click.echo(f"  kbopt eval --run {run} --kernel {out}")


@click.command(short_help="Serve the live page of a run, until Ctrl-C.")
@click.argument("run", type=RunFolder())
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, show_default=False, help="Default: a free one."
)
def watch(run: Path, port: int) -> None:
    """Serve the live page of RUN, a folder or a name in runs/ or sweeps/, on 127.0.0.1, until Ctrl-C.

    The address holds a token; the page only reads, and follows the journal as it grows.
    """
    from kbopt.finish import follow_run
    from kbopt.reporting.live import serve_live

    opened, source = follow_run(run)
    serve_live(opened, source, port=port, announce=lambda url: click.echo(f"live page: {url}", err=True))


@click.command(short_help="Write one HTML page about one or more runs.")
@click.argument("runs", nargs=-1, required=True, type=RunFolder())
@click.option("--out", type=OutFile(), help="Default: the report.html of one run.")
@click.option("--open", "open_page", is_flag=True, help="Open the page in a browser.")
def report(runs: tuple[Path, ...], out: Path | None, open_page: bool) -> None:
    """Write one self-contained HTML page about one or more RUNS; it opens from disk, with no network."""
    from kbopt.finish import open_run
    from kbopt.reporting.report import write_report

    if out is None:
        if len(runs) > 1:
            raise UserError(f"{len(runs)} runs need --out FILE for their page")
        out = runs[0] / "report.html"
    elif out.exists() and out.stat().st_size and out.read_bytes()[: len(_PAGE)].lower() != _PAGE:
        raise UserError(f"--out {out} exists and is no page of HTML, which would be lost. Give another file.")
    folders = list({folder.resolve(): folder for folder in runs}.values())
    with ExitStack() as stack:
        opened = [stack.enter_context(open_run(folder)) for folder in folders]
        page = write_report(_told_apart(opened, folders), out)
    click.echo(page)
    if open_page and not webbrowser.open(page.resolve().as_uri()):
        click.echo("no browser was found; open the file by hand", err=True)
        sys.exit(0)


def _told_apart(runs: Sequence[Run], folders: Sequence[Path]) -> list[Run]:
    """The runs with names that differ: a folder stands for a name that another run has too."""
    names = Counter(run.name for run in runs)
    return [
        replace(run, name=str(folder)) if names[run.name] > 1 else run
        for run, folder in zip(runs, folders, strict=True)
    ]


def _no_candidate(candidate: str, run: Path, known: list[str]) -> str:
    listed = f" It has {known[0]} to {known[-1]}." if known else ""
    return f"{run} has no candidate {candidate!r}.{listed} Name one by its id, such as c000012, or `best`."
