"""`kbopt eval`: judge one candidate, or many in one go."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import click
from click.core import ParameterSource

from kbopt.cli import options as shared
from kbopt.config import RunConfig
from kbopt.core.errors import UserError
from kbopt.core.types import EvalProtocol, EvalRequest, Measured, Result, Task, outcome_name

if TYPE_CHECKING:
    from kbopt.core.ports import Backend

Verdict = Literal["strict", "kernelbench"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One candidate of a batch: `name` is its file or the `id` of its JSON line."""

    name: str
    task: Task
    source: str

    @property
    def key(self) -> str:
        text = f"{self.name}\0{self.task.key}\0{self.source}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def as_the_run(ctx: click.Context, config: RunConfig, given: dict[str, Any]) -> dict[str, Any]:
    """`given` with the run's own protocol and backend, but for what the command line says."""
    of_run = {
        **shared.untyped(config.protocol),
        **shared.untyped(config.backend),
        "timeout": config.protocol.timeout_s,
        "backend": config.backend.name,
        "start_timeout": config.backend.start_timeout_s,
    }
    said = {name for name in given if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    return {
        name: of_run[name] if name in of_run and name not in said else value for name, value in given.items()
    }


@click.command("eval")
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    help="The best kernel of a run again, with its task, protocol and backend; or --kernel, judged so.",
)
@shared.task_options
@click.option("--kernel", type=click.Path(path_type=Path), help="A file that defines ModelNew.")
@click.option(
    "--kernels",
    type=click.Path(path_type=Path),
    help="Many: a folder of .py files, or JSON lines with source, and optionally id and task.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --kernels: append the JSON lines to this file; what it holds already is not run again.",
)
@shared.protocol_options
@shared.backend_options
@click.option("--verdict", type=shared.Name("verdict", Verdict), default="strict", help="Which one to print.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout and nothing else.")
@click.pass_context
def evaluate(
    ctx: click.Context,
    /,
    run: Path | None,
    task: str | None,
    task_idx: int | None,
    kernelbench: Path | None,
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
    if run is not None:
        config, item = _of_run(run, kernel)
        given, items = as_the_run(ctx, config, given), [item]
    protocol = shared.eval_protocol(given)
    backend_config = shared.backend_config(given)
    if run is None:
        named = task or task_idx is not None or kernel
        default_task = shared.find_task(task, task_idx, kernelbench, "") if named else None
        if kernel is not None:
            assert default_task is not None
            items = [Item(name=str(kernel), task=default_task, source=_read(kernel))]
        else:
            assert kernels is not None
            items = list(_items(kernels, default_task, kernelbench))
    from kbopt.compose import open_backend

    backend = open_backend(backend_config)
    if kernels is None:
        result = asyncio.run(_one(backend, items[0], protocol))
        if as_json:
            click.echo(json.dumps(document(items[0], result), ensure_ascii=False))
        else:
            click.echo(_text(items[0], result, verdict))
    else:
        asyncio.run(_many(backend, items, protocol, out))


def document(item: Item, result: Result) -> dict[str, object]:
    """The JSON of one evaluation, as the manual gives it. Milliseconds; None where nothing was measured."""
    outcome = result.outcome
    measured = outcome if isinstance(outcome, Measured) else None
    return {
        "task": item.task.name,
        "candidate": item.name,
        "outcome": outcome_name(outcome),
        "reason": None if measured else outcome.reason,  # type: ignore[union-attr]
        "speedup": measured.speedup if measured else None,
        "speedup_ci": list(measured.speedup_ci) if measured else None,
        "kernel_ms": _median(measured.kernel_ms) if measured else None,
        "reference_ms": _median(measured.reference_ms) if measured else None,
        "speedups": [shared.untyped(speedup) for speedup in measured.speedups] if measured else [],
        "device": result.device,
        "protocol": result.protocol,
        "seconds": shared.untyped(result.seconds),
        "kernelbench": shared.untyped(result.kernelbench) if result.kernelbench else None,
        "feedback": result.feedback,
    }


async def _open(backend: Backend) -> None:
    from kbopt.backends.opening import open_aloud

    await open_aloud(backend, backend.open(), shared.to_stderr)


def _of_run(folder: Path, kernel: Path | None) -> tuple[RunConfig, Item]:
    """The run's configuration, and its best kernel, or the one given, on the run's task as the run had it."""
    from kbopt.finish import candidate_source, open_run
    from kbopt.reporting.summary import summarize

    config, run, journal = open_run(folder)
    with journal:
        if kernel is not None:
            return config, Item(name=str(kernel), task=config.task, source=_read(kernel))
        best = summarize(run).best
    if best is None:
        raise UserError(f"{folder} has no correct kernel to judge again. Name a file with --kernel.")
    source = candidate_source(folder, best.candidate)
    return config, Item(name=best.candidate, task=config.task, source=source)


async def _one(backend: Backend, item: Item, protocol: EvalProtocol) -> Result:
    await _open(backend)
    try:
        return (await backend.evaluate([_request(item, protocol)]))[0]
    finally:
        await backend.close()


async def _many(backend: Backend, items: list[Item], protocol: EvalProtocol, out: Path | None) -> None:
    """Stream a JSON line for each item, in the order in which they are done."""
    known = _known(out, protocol) if out else set()
    todo = [item for item in items if item.key not in known]
    click.echo(f"{len(items)} candidates, {len(items) - len(todo)} judged before", err=True)
    sink: TextIO = out.open("a") if out else sys.stdout
    await _open(backend)
    places = asyncio.Semaphore(backend.max_in_flight)
    done = 0

    async def judge(item: Item) -> None:
        nonlocal done
        async with places:
            result = (await backend.evaluate([_request(item, protocol)]))[0]
        line = {"key": item.key, **document(item, result)}
        print(json.dumps(line, ensure_ascii=False), file=sink, flush=True)
        done += 1
        click.echo(f"[{done}/{len(todo)}] {item.name}: {headline(result)}", err=True)

    try:
        async with asyncio.TaskGroup() as group:
            for item in todo:
                group.create_task(judge(item))
    finally:
        await backend.close()
        if out:
            sink.close()


def _known(out: Path, protocol: EvalProtocol) -> set[str]:
    """Keys of the lines in `out` that were judged by `protocol`; a torn last line does not count."""
    if not out.exists():
        return set()
    keys = set()
    for text in out.read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if line["protocol"] == protocol.id:
            keys.add(line["key"])
    return keys


def _items(source: Path, task: Task | None, kernelbench: Path | None) -> Iterator[Item]:
    if source.is_dir():
        if task is None:
            raise UserError("--kernels DIR needs --task")
        files = sorted(source.glob("*.py"))
        if not files:
            raise UserError(f"no .py files in {source}")
        for file in files:
            yield Item(name=str(file), task=task, source=_read(file))
        return
    for number, text in enumerate(_read(source).splitlines(), start=1):
        if text.strip():
            yield _line_item(text, f"{source}:{number}", task, kernelbench)


def _line_item(text: str, where: str, task: Task | None, kernelbench: Path | None) -> Item:
    try:
        line = json.loads(text)
        source = line["source"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{where}: expected a JSON object with a 'source', not {text[:80]!r}") from None
    if "task" in line:
        task = shared.find_task(line["task"], None, kernelbench, "")
    if task is None:
        raise UserError(f"{where}: names no task, and there is no --task")
    return Item(name=str(line.get("id", where)), task=task, source=source)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def _request(item: Item, protocol: EvalProtocol) -> EvalRequest:
    return EvalRequest(
        task=item.task, source=item.source, protocol=protocol, kernelbench=True, baselines=True
    )


def headline(result: Result) -> str:
    """The outcome in one line."""
    outcome = result.outcome
    if isinstance(outcome, Measured):
        low, high = outcome.speedup_ci
        return f"measured, {outcome.speedup:.2f}x [{low:.2f}, {high:.2f}]"
    return f"{outcome_name(outcome)}: {outcome.reason.splitlines()[0] if outcome.reason else ''}"


def _text(item: Item, result: Result, verdict: Verdict) -> str:
    lines = [f"{item.name} on {item.task.name}, {result.device}"]
    if verdict == "kernelbench" and result.kernelbench:
        fields = shared.untyped(result.kernelbench).items()
        lines += [f"  {name}: {'not timed' if value == -1.0 else value}" for name, value in fields]
    else:
        lines.append(f"  {headline(result)}")
    times = ", ".join(f"{name} {value:.2f} s" for name, value in shared.untyped(result.seconds).items())
    return "\n".join([*lines, f"  {times}", "", result.feedback])


def _median(samples: tuple[float, ...]) -> float:
    import statistics

    return statistics.median(samples)
