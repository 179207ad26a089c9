"""`kbopt run` and `kbopt resume`: one search, from start or from where it stands, to its table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from kbopt.cli import exit_interrupted, parsed
from kbopt.cli.batch import headline
from kbopt.cli.grouped import Command, Grouped, option, options
from kbopt.cli.options.backend import backend_options
from kbopt.cli.options.proposer import proposer_options
from kbopt.cli.options.protocol import protocol_options
from kbopt.cli.options.search import (
    budget_options,
    raise_options,
    search_options,
    search_verdict_option,
    start_option,
)
from kbopt.cli.options.task import task_options
from kbopt.cli.options.wandb import wandb_options
from kbopt.cli.output import json_option, print_json, to_stderr
from kbopt.cli.values import FolderName, RunFolder
from kbopt.core.errors import InfraError
from kbopt.core.events import Raised

if TYPE_CHECKING:
    from kbopt.config import RunConfig
    from kbopt.core.protocol import Verdict

DEFAULT_TASK = "quick/gelu"

output_options = options(
    json_option,
    option("--verbose", is_flag=True, help="Show every evaluation as it comes."),
    option("--live", is_flag=True, help="Serve the report as a live page on 127.0.0.1 meanwhile."),
    wandb_options,
)
OUTPUT_OPTIONS = ("as_json", "verbose", "live", "use_wandb", "project_name", "wandb_mode")


@click.command(cls=Command, short_help="Search for a faster kernel for one task.")
@task_options
@start_option
@search_options
@budget_options
@proposer_options
@backend_options
@protocol_options
@search_verdict_option
@option(
    "--explorers",
    "--num-threads",
    type=click.IntRange(1, 1024),
    default=4,
    help="Proposals made at the same time.",
)
@option("--out", type=click.Path(path_type=Path), help="The run's folder. Default: runs/NAME.")
@option("--run-name", type=FolderName(), help="The run's name. Default: from date, task, algorithm and seed.")
@output_options
def run(
    task: str | None,
    task_idx: int | None,
    kernelbench: Path | None,
    workloads: str | None,
    explorers: int,
    verdict: Verdict,
    out: Path | None,
    run_name: str | None,
    **given: Any,
) -> None:
    """Search for a faster kernel for one task.

    Without options: the task quick/gelu, kernels from kbopt's own seeds, this machine's device, two to three
    minutes.

    \b
    kbopt run --task quick/softmax --num-steps 20
    kbopt run --task mine.py --start my_kernel.py --max-evals 50
    kbopt run --task matmul/9 --proposer llm --model openai/gpt-5 --max-usd 5 --backend modal --gpu L40S
    kbopt run --task quick/gelu --proposer agent --agent claude --max-evals 20 --explorers 2
    """
    from kbopt import driver
    from kbopt.compose.lessons import with_lessons
    from kbopt.compose.searches import preflight
    from kbopt.config import RunConfig

    output = {name: given.pop(name) for name in OUTPUT_OPTIONS}
    found = parsed.with_workloads(parsed.find_task(task, task_idx, kernelbench, DEFAULT_TASK), workloads)
    settings, backend = parsed.search_settings(given), parsed.backend_config(given)
    proposer = parsed.proposer_config(given, [found])
    config = RunConfig(
        name=run_name or "",
        task=found,
        settings=replace(settings, strategies=parsed.first_strategies(given, proposer, backend)),
        protocol=parsed.at_stated_precision(parsed.eval_protocol(given), [found]),
        backend=backend,
        proposer=proposer,
        explorers=explorers,
        verdict=verdict,
    )
    if not config.name:
        config = replace(config, name=out.name if out else driver.default_name(config))
    folder = out or Path("runs") / config.name
    config = with_lessons(config)
    with _resumable(folder):
        driver.create(config, folder)
        click.echo(preflight(config), err=True)
        _drive_and_print(config, folder, **output)


@click.command(cls=Grouped, short_help="Go on after a crash, a kill or Ctrl-C, or with a larger budget.")
@click.argument("run", type=RunFolder())
@raise_options
@output_options
def resume(run: Path, **given: Any) -> None:
    """Go on with RUN, a folder or a name in runs/ or sweeps/, after a crash, a kill or Ctrl-C.

    Nothing is lost and nothing is evaluated twice: the journal is replayed, and what had been proposed but
    not measured is measured first. A run that ended because a limit was used up goes on with a larger one.

    \b
    kbopt resume runs/NAME
    kbopt resume runs/NAME --max-evals 50      had 30: 20 more, from where it ended
    """
    from kbopt.finish import load

    output = {name: given.pop(name) for name in OUTPUT_OPTIONS}
    config = load(run)
    if (wanted := Raised(**given)) != Raised():
        from kbopt.raising import raise_run

        click.echo(f"raised: {raise_run(run, wanted)}", err=True)
    with _resumable(run):
        _drive_and_print(config, run, **output)


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """How to go on, said where a machine broke, and where Ctrl-C or SIGTERM came, however early or late, once
    there is a journal.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not (folder / "journal.sqlite").exists():
            raise
        click.echo(f"stopped; go on with: kbopt resume {folder}", err=True)
        exit_interrupted()
    except InfraError as error:
        if not (folder / "journal.sqlite").exists():
            raise
        how = f"What was measured is in {folder}; go on with: kbopt resume {folder}"
        raise InfraError(f"{error}\n{how}") from error


def _drive_and_print(
    config: RunConfig,
    folder: Path,
    *,
    as_json: bool,
    verbose: bool,
    live: bool,
    use_wandb: bool,
    project_name: str,
    wandb_mode: Literal["online", "offline"] | None,
) -> None:
    from rich.console import Console

    from kbopt import driver
    from kbopt.core.events import Entry, Evaluated
    from kbopt.finish import finish, follow_run, keep_lessons, print_result, run_document
    from kbopt.follow import JournalFollower, WandbFollower, WandbOptions
    from kbopt.reporting.live import LivePage
    from kbopt.reporting.terminal import ProgressView
    from kbopt.reporting.text import plural
    from kbopt.store.journal import JournalReader

    followers: list[Callable[[], None]] = []
    wandb_log = None
    if use_wandb and (options := WandbOptions.of(project_name, wandb_mode, to_stderr)):
        wandb_log = WandbFollower(folder, options, config.backend)
        followers.append(wandb_log)
    try:
        with ExitStack() as stack:
            if live:
                page = stack.enter_context(LivePage(*follow_run(folder)))
                click.echo(f"live page: {page.url}", err=True)
            view = stack.enter_context(ProgressView(Console(stderr=True)))
            if verbose:

                def say(entry: Entry) -> None:
                    if isinstance(entry.event, Evaluated):
                        view.note(f"{entry.event.candidate}: {headline(entry.event.result, config.verdict)}")

                with JournalReader(folder / "journal.sqlite") as journal:
                    followers.append(JournalFollower(folder, say, after=journal.last))
            driver.drive(config, folder, view, followers)
    finally:
        result = finish(folder)
        if as_json:
            print_json(run_document(result))
        else:
            print_result(result, Console())
        if wandb_log and (failed := wandb_log.close(result)):
            click.echo(f"Weights & Biases: {failed}", err=True)
    if kept := keep_lessons(folder):
        click.echo(f"{plural(kept, 'lesson')} added to {config.proposer.library}", err=True)
