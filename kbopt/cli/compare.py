"""`kbopt compare`: runs, sweeps, benchmarks and audits side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbopt.cli.judged_lines import judged_lines
from kbopt.cli.output import json_option, to_stderr
from kbopt.core.errors import UserError

if TYPE_CHECKING:
    from kbopt.reporting.scoreboard import Row
    from kbopt.reporting.sides import Side
    from kbopt.reporting.summary import RunSummary

PLACES = ("", "runs", "sweeps", "audits")
"""Where a name that is no path is looked for: the default folders of the commands that make them."""

MOST_TASKS = 60
"""Tasks in the text's table, and verdicts that are told apart; more fill several screens."""

AUDIT_LINES = "results.jsonl"


@click.command(short_help="Put runs, sweeps, benchmarks or audits side by side.")
@click.argument("paths", metavar="RUN_OR_TABLE...", nargs=-1, required=True)
@json_option
def compare(paths: tuple[str, ...], as_json: bool) -> None:
    """Put runs, sweeps, benchmarks and audits side by side: figures with intervals, and what differs.

    Each is a folder, or a name in runs/, sweeps/ or audits/: of `kbopt run`, `kbopt sweep`, `kbopt bench` or
    `kbopt audit`. An audit may be its JSON lines alone. Each algorithm of a sweep is a side of its own. The
    later ones are told against the first: how many times as fast, on how many tasks with confidence, and for
    how many the verdict is the same.

    \b
    kbopt compare sweeps/kernelbench sweeps/gepa
    kbopt compare runs/first runs/second --json
    kbopt compare audits/monday audits/tuesday
    """
    from kbopt.cli.output import print_json
    from kbopt.reporting.sides import side_by_side

    sides = _told_apart([side for path in paths for side in _sides(_found(path))])
    if len(sides) < 2:
        raise UserError(f"{paths[0]} is one side alone: give two or more to compare")
    found = side_by_side(sides)
    if as_json:
        print_json(found)
    else:
        _say(sides)


def _found(path: str) -> Path:
    """Where a path or a name lies. Raises `UserError` where there is nothing."""
    for place in PLACES:
        if (Path(place) / path).exists():
            return Path(place) / path
    raise UserError(f"there is no {path}, neither here nor in {', '.join(f'{p}/' for p in PLACES if p)}")


def _sides(path: Path) -> Iterator[Side]:
    """What lies at `path`. Raises `UserError` where that is nothing that can be compared."""
    folder = path if path.is_dir() else path.parent
    if (folder / "bench.json").is_file():
        yield _benchmark(folder)
    elif (folder / "sweep.json").is_file():
        yield from _sweep(folder)
    elif (folder / "journal.sqlite").is_file():
        yield _run(folder)
    else:
        lines = path / AUDIT_LINES if path.is_dir() else path
        rows, setup = _audit(lines)
        if not rows:
            raise UserError(
                f"{path} is no run, sweep, benchmark or audit: it has no journal.sqlite, sweep.json or "
                f"bench.json, and no JSON lines of kbopt audit. Give a folder that one of them made."
            )
        from kbopt.reporting.sides import Side

        yield Side(name=str(path), kind="audit", setup=setup, rows=rows)


def _benchmark(folder: Path) -> Side:
    from kbopt import bench
    from kbopt.reporting.sides import Side

    config = bench.load(folder)
    rows = bench.rows_of(folder)
    if not rows:
        raise UserError(
            f"the benchmark in {folder} has no table yet: start it again with the same command, which goes on"
        )
    setup = {**bench.setup(config), "device": ", ".join(bench.devices(config, folder))}
    return Side(name=str(folder), kind="benchmark", setup=setup, rows=rows)


def _sweep(folder: Path) -> Iterator[Side]:
    from kbopt import sweep
    from kbopt.reporting.sides import Side

    config = sweep.load(folder)
    runs = [run for run in config.runs() if (folder / run.name / "journal.sqlite").is_file()]
    found: dict[str, list[tuple[Row, Mapping[str, str]]]] = {}
    for run in runs:
        found.setdefault(run.settings.algorithm, []).append(_searched(folder / run.name))
    for algorithm, searches in found.items():
        setup = _merged([setup for _, setup in searches])
        rows = tuple(row for row, _ in searches)
        yield Side(name=f"{folder} {algorithm}", kind="sweep", setup=setup, rows=rows)


def _run(folder: Path) -> Side:
    from kbopt.reporting.sides import Side

    row, setup = _searched(folder)
    return Side(name=str(folder), kind="run", setup=setup, rows=(row,))


def _searched(folder: Path) -> tuple[Row, Mapping[str, str]]:
    """The row of a search, and by what it was made. One that goes on still counts as far as it got."""
    from kbopt.finish import open_run
    from kbopt.reporting.scoreboard import row_of
    from kbopt.reporting.summary import summarize

    with open_run(folder) as run:
        summary: RunSummary = summarize(run)
    without_model = {"models": "", "language": ""}
    row = row_of(summary, summary.task, page=str(folder / "report.html"))
    return row, {**without_model, **summary.setup}


def _merged(setups: Sequence[Mapping[str, str]]) -> Mapping[str, str]:
    """The settings of several searches, with every value that one of them has."""
    names = dict.fromkeys(name for setup in setups for name in setup)
    return {
        name: ", ".join(dict.fromkeys(value for setup in setups if (value := setup.get(name))))
        for name in names
    }


def _audit(lines: Path) -> tuple[tuple[Row, ...], Mapping[str, str]]:
    """The kernels of an audit, the last line of each, and by what they were judged."""
    if not lines.is_file():
        return (), {}
    try:
        whole, faults = judged_lines(lines)
    except OSError as error:
        raise UserError(f"cannot read {lines}: {error}. Give a file that you may read.") from None
    judged = list({line["key"]: line for line in whole}.values())
    for fault in faults if judged else ():
        to_stderr(fault)
    names = Counter(str(line.get("candidate")) for line in judged)
    setup = {
        name: ", ".join(dict.fromkeys(str(line[name]) for line in judged if line.get(name)))
        for name in ("protocol", "device", "torch")
    }
    return tuple(_kernel(line, is_alone=names[str(line.get("candidate"))] == 1) for line in judged), setup


def _kernel(line: Mapping[str, Any], *, is_alone: bool) -> Row:
    from kbopt.reporting.scoreboard import Row

    outcome = line["outcome"]
    measured = outcome == "measured"
    over = {
        one["baseline"]: one["speedup"]
        for one in line.get("speedups", ())
        if one["clock"] == "device" and not one["reason"] and one["baseline"] in ("compile", "max-autotune")
    }
    if measured and line.get("speedup"):
        over["eager"] = line["speedup"]
    verdict = line.get("kernelbench") or {}
    times = (verdict.get("ref_runtime", -1.0), verdict.get("runtime", -1.0))
    theirs = None if not verdict else 0.0
    if verdict.get("correctness"):
        theirs = times[0] / times[1] if min(times) > 0 else None
    fate = (
        "correct"
        if measured
        else "unsolved"
        if outcome
        else "refused"
        if line.get("refused")
        else "unfinished"
    )
    name = str(line.get("candidate"))
    interval = tuple(line["speedup_ci"]) if measured and line.get("speedup_ci") else None
    return Row(
        task=name if is_alone else f"{name} on {line.get('task')} ({line['key'][:8]})",
        seed=0,
        fate=fate,  # type: ignore[arg-type]
        reason=str(line.get("reason") or "")[:300],
        over=over if measured else {},
        interval=interval,
        own_kernel=bool(line.get("custom_kernel")),
        kernelbench=theirs,
        verdict=" ".join(filter(None, (outcome or fate, line.get("family")))),
    )


def _told_apart(sides: Sequence[Side]) -> list[Side]:
    """The sides by the last part of their paths where that tells them apart; the second one of a name is
    `name (2)`.
    """
    short = [side.name.rstrip("/").rpartition("/")[2] for side in sides]
    if len(set(short)) == len(short):
        return [replace(side, name=name) for side, name in zip(sides, short, strict=True)]
    times: Counter[str] = Counter()
    apart = []
    for side in sides:
        times[side.name] += 1
        count = times[side.name]
        apart.append(side if count == 1 else replace(side, name=f"{side.name} ({count})"))
    return apart


def _say(sides: Sequence[Side]) -> None:
    from rich.console import Console

    from kbopt.reporting.listing import print_cells
    from kbopt.reporting.sides import side_by_side, table, tasks, told
    from kbopt.reporting.text import printable

    found, console = side_by_side(sides), Console()
    for warning in found.warnings:
        click.echo(printable(warning))
    print_cells(console, table(found))
    if found.settings:
        click.echo("\nWhat differs in the settings:")
        names = [side.name for side in found.sides]
        print_cells(console, [["", *names], *([one.name, *one.values] for one in found.settings)])
    else:
        click.echo("\nThe settings are the same.")
    rows = tasks(found)
    if len(rows) <= MOST_TASKS + 1:
        click.echo("\nSpeedup over eager PyTorch, or the verdict:")
        print_cells(console, rows)
    else:
        click.echo(f"\n{len(rows) - 1} tasks: --json has each of them.")
    for pair in found.against:
        click.echo("\n" + printable("\n".join(told(pair))))
        for one in pair.differing[:MOST_TASKS]:
            click.echo(printable(f"  {one.task}: {one.first}, then {one.second}"))
        if len(pair.differing) > MOST_TASKS:
            click.echo(f"  and {len(pair.differing) - MOST_TASKS} more; --json has all")
