"""`kbopt profile`: what limits one kernel."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from kbopt.cli import parsed
from kbopt.cli.batch import opened
from kbopt.cli.eval import WHICH_TASK, read_kernel
from kbopt.cli.grouped import Command, option
from kbopt.cli.options.backend import backend_options
from kbopt.cli.options.protocol import protocol_options
from kbopt.cli.options.task import task_options
from kbopt.cli.output import json_option, print_json, to_stderr
from kbopt.core import codec
from kbopt.core.errors import UserError
from kbopt.core.ports import Backend, Profiler
from kbopt.core.profile import NotProfiled, Profile, Profiled, ProfileRequest
from kbopt.core.profile_text import changes, text_of
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task


@click.command(
    "profile", cls=Command, short_help="What limits a kernel: memory, arithmetic, latency, launches?"
)
@task_options
@option(
    "--kernel",
    type=click.Path(path_type=Path),
    required=True,
    help="A file that defines ModelNew, or a kernel in the form of the task's format.",
)
@option(
    "--parent",
    type=click.Path(path_type=Path),
    help="A second kernel, to say what changed against it. Default: none.",
)
@option(
    "--counters/--no-counters",
    default=True,
    help="Ask Nsight Compute too, where there is one and the driver permits it. It may hold the GPU 40 s.",
)
@protocol_options
@backend_options
@json_option
def profile(
    task: str | None,
    task_idx: int | None,
    kernelbench: Path | None,
    kernel: Path,
    parent: Path | None,
    counters: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Say what limits a kernel: its machine code, what one call runs, and hardware counters.

    Nothing is judged or timed for a verdict; `kbopt eval` does that. A tier that is not there says why, and
    what would make it work. A kernel that cannot be built or called is an answer, not an error: the exit code
    is 0.

    \b
    kbopt profile --task quick/softmax --kernel my_kernel.py
    kbopt profile --task level1/36 --kernel new.py --parent old.py --device cuda --json
    """
    if not task and task_idx is None:
        raise UserError(f"kbopt profile needs --task: {WHICH_TASK}")
    of_task = parsed.find_task(task, task_idx, kernelbench, "")
    protocol = parsed.at_stated_precision(parsed.eval_protocol(given), [of_task])
    backend = parsed.backend_config(given)
    from kbopt.compose.backends import open_backend
    from kbopt.compose.checks import check_device, check_simulated

    if backend.name == "local":
        check_device(backend.device)
    check_simulated(of_task, backend.name)
    device = open_backend(backend)
    if not isinstance(device, Profiler):
        raise UserError(
            f"--backend {backend.name} has no profiles. Give --backend local, or spool for the device of "
            "another machine."
        )
    files = [kernel, *([parent] if parent else [])]
    sources = [read_kernel(file, of_task) for file in files]
    found = asyncio.run(_profiled(device, of_task, sources, protocol, counters=counters))
    before = found[1] if parent and isinstance(found[1], Profile) else None
    if as_json:
        print_json(_document(of_task, kernel, found[0], before))
        return
    click.echo(f"{kernel} on {of_task.name}")
    if isinstance(found[0], NotProfiled):
        click.echo(f"Not profiled: {found[0].reason}")
        return
    click.echo(text_of(found[0], before))
    if parent and isinstance(found[1], NotProfiled):
        click.echo(f"{parent} could not be profiled: {found[1].reason}")
    spent = codec.fields_of(found[0].seconds).items()
    to_stderr(", ".join(f"{name} {seconds:.2f} s" for name, seconds in spent))


async def _profiled(
    backend: Backend, task: Task, sources: list[str], protocol: EvalProtocol, *, counters: bool
) -> list[Profiled]:
    assert isinstance(backend, Profiler)
    await opened(backend)
    try:
        return [
            await backend.profile(
                ProfileRequest(task=task, source=source, protocol=protocol, counters=counters)
            )
            for source in sources
        ]
    finally:
        await backend.close()


def _document(task: Task, kernel: Path, found: Profiled, before: Profile | None) -> dict[str, object]:
    """The profile's own fields beside the names; where there is none it is null, and `reason` says why."""
    document: dict[str, object] = {"task": task.name, "candidate": str(kernel)}
    if isinstance(found, NotProfiled):
        return {**document, "reason": found.reason, "profile": None, "changes": None, "text": None}
    return {
        **document,
        "reason": None,
        "profile": codec.encode(found),
        "changes": changes(found, before) if before else None,
        "text": text_of(found, before),
    }
