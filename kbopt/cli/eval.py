"""`kbopt eval`: judge one candidate, or many in one go."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from kbopt.cli import parsed
from kbopt.cli.batch import Batch, Item, document, headline, opened, owner, request
from kbopt.cli.grouped import Command, option
from kbopt.cli.json_lines import check_lines
from kbopt.cli.options.backend import backend_options
from kbopt.cli.options.protocol import protocol_options
from kbopt.cli.options.task import task_options
from kbopt.cli.output import json_option, to_stderr
from kbopt.cli.values import Name, OutFile, RunFolder
from kbopt.config import RunConfig
from kbopt.core import codec
from kbopt.core.errors import UserError
from kbopt.core.evaluations import Result
from kbopt.core.protocol import EvalProtocol, Verdict
from kbopt.core.sources import read_source
from kbopt.core.task import Task
from kbopt.core.text import encodable

if TYPE_CHECKING:
    from kbopt.core.ports import Backend


WHICH_TASK = (
    "the problem that the kernel solves, such as --task quick/gelu, or the path of a .py file or folder with "
    "its reference. `kbopt tasks` lists names"
)


def as_the_run(ctx: click.Context, config: RunConfig, given: dict[str, Any]) -> dict[str, Any]:
    """`given` with the run's own protocol and backend, but for what the command line says."""
    of_run = {
        **codec.fields_of(config.protocol),
        **codec.fields_of(config.backend),
        "timeout": config.protocol.timeout_s,
        "backend": config.backend.name,
        "start_timeout": config.backend.start_timeout_s,
    }
    said = {name for name in given if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    return {
        name: of_run[name] if name in of_run and name not in said else value for name, value in given.items()
    }


@click.command("eval", cls=Command, short_help="Judge one kernel, or many: correct, and how fast?")
@option(
    "--run",
    type=RunFolder(),
    help="The best kernel of a run again, with its task, protocol and backend; or --kernel, judged so. "
    "Default: --task and --kernel.",
)
@task_options
@option(
    "--kernel",
    type=click.Path(path_type=Path),
    help="A file that defines ModelNew, or a kernel in the form of the task's format. Default: --run or "
    "--kernels.",
)
@option(
    "--kernels",
    type=click.Path(path_type=Path),
    help="Many: a folder of such files, or JSON lines with source, and optionally id and task. Default: one "
    "kernel.",
)
@option(
    "--out",
    type=OutFile(),
    help="With --kernels: append the JSON lines to this file; what it holds already is not run again. "
    "Default: stdout.",
)
@protocol_options
@backend_options
@option("--verdict", type=Name("verdict", Verdict), default="strict", help="Which one to print.")
@json_option
@click.pass_context
def evaluate(
    ctx: click.Context,
    /,
    run: Path | None,
    task: str | None,
    task_idx: int | None,
    kernelbench: Path | None,
    workloads: str | None,
    kernel: Path | None,
    kernels: Path | None,
    out: Path | None,
    verdict: Verdict,
    as_json: bool,
    **given: Any,
) -> None:
    """Judge a kernel: is it correct, how fast is it, and can the answer be believed.

    Both verdicts are computed: strict, which ranks, and KernelBench's own, for comparison with published
    numbers. A bad kernel is an answer, not an error: the exit code is 0.

    \b
    kbopt eval --task quick/gelu --kernel my_kernel.py
    kbopt eval --task matmul/9 --kernel k.py --backend modal --gpu H100 --json
    kbopt eval --task quick/gelu --kernels candidates/ --out results.jsonl
    kbopt eval --run runs/first
    """
    if (kernel is not None) + (kernels is not None) + (run is not None and kernel is None) != 1:
        raise UserError("give one of --kernel FILE, --kernels DIR_OR_JSONL and --run RUN")
    if run is not None and (task or task_idx is not None):
        raise UserError(f"--run {run} says which task it is: leave out --task and --task-idx")
    if out and kernel:
        raise UserError("--out goes with --kernels; use --json > FILE for a single kernel")
    if out:
        check_lines(out)
    if run is not None:
        config, item = _of_run(run, kernel)
        given, items = as_the_run(ctx, config, given), [item]
    protocol = parsed.eval_protocol(given)
    backend_config = parsed.backend_config(given)
    if run is None:
        named = task or task_idx is not None
        default_task = parsed.find_task(task, task_idx, kernelbench, "") if named else None
        if kernel is not None:
            if default_task is None:
                raise UserError(f"--kernel {kernel} needs --task: {WHICH_TASK}")
            items = [Item(name=str(kernel), task=default_task, source=read_kernel(kernel, default_task))]
        else:
            assert kernels is not None
            items = list(_items(kernels, default_task, kernelbench))
        protocol = parsed.at_stated_precision(protocol, [item.task for item in items if not item.fault])
    if workloads is not None:
        items = [replace(item, task=parsed.with_workloads(item.task, workloads)) for item in items]
    from kbopt.compose.backends import open_backend
    from kbopt.compose.checks import check_device, check_simulated

    if backend_config.name == "local":
        check_device(backend_config.device)
    for item in items:
        if not item.fault:
            check_simulated(item.task, backend_config.name)
    # With --out the same command goes on, after it was killed too: it asks a spool under the same name.
    backend = open_backend(backend_config, owner(out) if out and backend_config.name == "spool" else "")
    if kernels is None:
        result = asyncio.run(_one(backend, items[0], protocol))
        if as_json:
            click.echo(json.dumps(document(items[0], result), ensure_ascii=False))
        else:
            click.echo(_text(items[0], result, verdict))
    else:
        batch = Batch(backend, backend_config, protocol, out)
        try:
            asyncio.run(batch.run(items))
        except KeyboardInterrupt:
            hint = "the same command goes on" if out else "with --out FILE the same command would go on"
            click.echo(f"stopped; {batch.summary()}; {hint}", err=True)
            raise
        click.echo(batch.summary(), err=True)
        if batch.worst:
            sys.exit(batch.worst)


def _of_run(folder: Path, kernel: Path | None) -> tuple[RunConfig, Item]:
    """The run's configuration, and its best kernel, or the one given, on the run's task as the run had it."""
    from kbopt.finish import candidate_source, load, open_run
    from kbopt.reporting.summary import summarize

    config = load(folder)
    if kernel is not None:
        return config, Item(name=str(kernel), task=config.task, source=read_kernel(kernel, config.task))
    with open_run(folder) as run:
        best = summarize(run).best
    if best is None:
        raise UserError(f"{folder} has no correct kernel to judge again. Name a file with --kernel.")
    source = candidate_source(folder, best.candidate)
    return config, Item(name=best.candidate, task=config.task, source=source)


async def _one(backend: Backend, item: Item, protocol: EvalProtocol) -> Result:
    await opened(backend)
    try:
        return (await backend.evaluate([request(item, protocol)]))[0]
    finally:
        await backend.close()


def _items(source: Path, task: Task | None, kernelbench: Path | None) -> Iterator[Item]:
    from kbopt.tasks import endings

    if source.is_dir():
        if task is None:
            raise UserError(f"--kernels {source} needs --task: {WHICH_TASK}")
        files = sorted(path for path in source.iterdir() if path.suffix in endings(task))
        if not files:
            raise UserError(f"no {' or '.join(endings(task))} files in {source}")
        for file in files:
            try:
                yield Item(name=str(file), task=task, source=read_kernel(file, task))
            except UserError as error:
                yield Item(name=str(file), task=task, source="", fault=str(error))
        return
    for number, text in enumerate(_lines(source), start=1):
        if text.strip():
            yield _line_item(text, f"{source}:{number}", task, kernelbench)


def _line_item(text: str, where: str, task: Task | None, kernelbench: Path | None) -> Item:
    try:
        line = json.loads(text)
        source = encodable(line["source"]).removeprefix("\ufeff")
        name = encodable(str(line.get("id", where)))
    except (AttributeError, ValueError, KeyError, TypeError):
        raise UserError(f"{where}: expected a JSON object with a 'source', not {text[:80]!r}") from None
    if "task" in line:
        try:
            task = parsed.find_task(str(line["task"]), None, kernelbench, "")
        except UserError as error:
            return Item(
                name=name, task=Task(name=str(line["task"]), source=""), source=source, fault=str(error)
            )
    if task is None:
        raise UserError(f"{where} has no 'task', and there is no --task: {WHICH_TASK}")
    from kbopt.tasks import as_model

    try:
        return Item(name=name, task=task, source=as_model(source, where, task))
    except UserError as error:
        return Item(name=name, task=task, source=source, fault=str(error))


def read_kernel(path: Path, task: Task) -> str:
    """The kernel in the file; one in the form of the task's format as a source that defines `ModelNew`."""
    from kbopt.tasks import as_model, missing

    try:
        text = read_source(path)
    except IsADirectoryError:
        raise UserError(
            f"cannot read {path}: it is a folder; --kernels judges all of its .py files"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}. Give a Python file.") from None
    source = as_model(text, str(path), task)
    if lost := missing(source, str(path), task):
        to_stderr(lost)  # A kernel that does not build is an answer, which knows of ModelNew alone.
    return source


def _lines(path: Path) -> list[str]:
    """JSON lines end at line feeds alone: a string may hold what `splitlines` parts at as well."""
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}. Give JSON lines in UTF-8, or a folder.") from None


def _text(item: Item, result: Result, verdict: Verdict) -> str:
    lines = [f"{item.name} on {item.task.name}, {result.device}"]
    if verdict != "kernelbench" or not result.kernelbench:
        lines.append(f"  {headline(result)}")
    if verdict != "strict" and result.kernelbench:
        fields = codec.fields_of(result.kernelbench).items()
        lines += [f"  {name}: {'not timed' if value == -1.0 else value}" for name, value in fields]
    times = ", ".join(f"{name} {value:.2f} s" for name, value in codec.fields_of(result.seconds).items())
    return "\n".join([*lines, f"  {times}", "", result.feedback])
