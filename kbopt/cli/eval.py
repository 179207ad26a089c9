"""`kbopt eval`: judge one candidate, or many in one go."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click
from click.core import ParameterSource

from kbopt.cli import INFRA_ERROR, USER_ERROR
from kbopt.cli import options as shared
from kbopt.cli.grouped import Command
from kbopt.cli.json_lines import appending, objects
from kbopt.cli.options import option
from kbopt.cli.values import Name, OutFile, RunFolder
from kbopt.config import BackendConfig, RunConfig
from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.sources import read_source
from kbopt.core.types import EvalProtocol, EvalRequest, Measured, Result, Task, Verdict, outcome_name

if TYPE_CHECKING:
    from kbopt.core.ports import Backend


WHICH_TASK = (
    "the problem that the kernel solves, such as --task quick/gelu, or the path of a .py file or folder with "
    "its reference. `kbopt tasks` lists names"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One candidate of a batch: `name` is its file or the `id` of its JSON line.

    `fault` says why it cannot be judged, "" where it can.
    """

    name: str
    task: Task
    source: str
    fault: str = ""

    @property
    def key(self) -> str:
        text = f"{self.name}\0{self.task.key}\0{self.source}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


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
@shared.task_options
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
@shared.protocol_options
@shared.backend_options
@option("--verdict", type=Name("verdict", Verdict), default="strict", help="Which one to print.")
@option("--json", "as_json", is_flag=True, help="One JSON document on stdout and nothing else.")
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
        named = task or task_idx is not None
        default_task = shared.find_task(task, task_idx, kernelbench, "") if named else None
        if kernel is not None:
            if default_task is None:
                raise UserError(f"--kernel {kernel} needs --task: {WHICH_TASK}")
            items = [Item(name=str(kernel), task=default_task, source=_read(kernel, default_task))]
        else:
            assert kernels is not None
            items = list(_items(kernels, default_task, kernelbench))
        protocol = shared.at_stated_precision(protocol, [item.task for item in items if not item.fault])
    from kbopt.compose import check_device, check_simulated, open_backend

    if backend_config.name == "local":
        check_device(backend_config.device)
    for item in items:
        if not item.fault:
            check_simulated(item.task, backend_config.name)
    # With --out the same command goes on, after it was killed too: it asks a spool under the same name.
    backend = open_backend(backend_config, _owner(out) if out and backend_config.name == "spool" else "")
    if kernels is None:
        result = asyncio.run(_one(backend, items[0], protocol))
        if as_json:
            click.echo(json.dumps(document(items[0], result), ensure_ascii=False))
        else:
            click.echo(_text(items[0], result, verdict))
    else:
        batch = _Batch(backend, backend_config, protocol, out)
        try:
            asyncio.run(batch.run(items))
        except KeyboardInterrupt:
            hint = "the same command goes on" if out else "with --out FILE the same command would go on"
            click.echo(f"stopped; {batch.summary()}; {hint}", err=True)
            raise
        click.echo(batch.summary(), err=True)
        if batch.worst:
            sys.exit(batch.worst)


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
        "kernel_ms": measured.call_ms[0] if measured else None,
        "reference_ms": measured.call_ms[1] if measured else None,
        "speedups": [codec.fields_of(speedup) for speedup in measured.speedups] if measured else [],
        "equal_code": codec.fields_of(measured.equal_code) if measured and measured.equal_code else None,
        "device": result.device,
        "protocol": result.protocol,
        "seconds": codec.fields_of(result.seconds),
        "kernelbench": codec.fields_of(result.kernelbench) if result.kernelbench else None,
        "feedback": result.feedback,
    }


def _owner(out: Path) -> str:
    return hashlib.sha256(str(out.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]


async def _open(backend: Backend) -> str:
    """The device, once it is there."""
    from kbopt.backends.opening import open_aloud

    return (await open_aloud(backend, backend.open(), shared.to_stderr)).device


def _of_run(folder: Path, kernel: Path | None) -> tuple[RunConfig, Item]:
    """The run's configuration, and its best kernel, or the one given, on the run's task as the run had it."""
    from kbopt.finish import candidate_source, open_run
    from kbopt.reporting.summary import summarize

    config, run, journal = open_run(folder)
    with journal:
        if kernel is not None:
            return config, Item(name=str(kernel), task=config.task, source=_read(kernel, config.task))
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


class _Batch:
    """Streams a JSON line for each item, in the order in which they are done. `worst` is the exit code."""

    def __init__(
        self, backend: Backend, config: BackendConfig, protocol: EvalProtocol, out: Path | None
    ) -> None:
        self._backend = backend
        self._protocol = protocol
        self._out = out
        self._torch = importlib.metadata.version("torch") if config.name == "local" else None
        self._outcomes: Counter[str] = Counter()
        self._best: tuple[float, str] | None = None
        self._done = self._todo = 0
        self.worst = 0

    async def run(self, items: list[Item]) -> None:
        """Judge what `out` does not hold. One that cannot be judged gets its line, and the others go on."""
        try:
            device = await _open(self._backend)
            known = _known(self._out, self._protocol, device, self._torch) if self._out else set()
            todo = [item for item in items if item.key not in known]
            self._todo = len(todo)
            click.echo(f"{len(items)} candidates, {len(items) - len(todo)} judged before", err=True)
            places = asyncio.Semaphore(self._backend.max_in_flight)
            with appending(self._out) if self._out else nullcontext(sys.stdout) as sink:
                async with asyncio.TaskGroup() as group:
                    for item in todo:
                        group.create_task(self._judge(item, places, sink))
        finally:
            await self._backend.close()

    async def _judge(self, item: Item, places: asyncio.Semaphore, sink: TextIO) -> None:
        try:
            if item.fault:
                raise UserError(item.fault)
            async with places:
                result = (await self._backend.evaluate([_request(item, self._protocol)]))[0]
        except (UserError, InfraError) as error:
            self.worst = max(self.worst, USER_ERROR if isinstance(error, UserError) else INFRA_ERROR)
            fields, said = _not_judged(item, error), f"not judged: {error}"
        else:
            fields, said = document(item, result), headline(result)
            if isinstance(result.outcome, Measured):
                self._best = max(self._best or (0.0, ""), (result.outcome.speedup, item.name))
        where = {"torch": self._torch}
        print(json.dumps({"key": item.key, **fields, **where}), file=sink, flush=True)
        self._done += 1
        self._outcomes[str(fields["outcome"] or "not judged")] += 1
        click.echo(f"[{self._done}/{self._todo}] {item.name}: {said}", err=True)

    def summary(self) -> str:
        """Such as `3 of 4 candidates done: 2 measured, 1 crashed; best 2.10x, k.py`."""
        outcomes = ", ".join(f"{count} {name}" for name, count in self._outcomes.most_common())
        best = f"; best {self._best[0]:.2f}x, {self._best[1]}" if self._best else ""
        return f"{self._done} of {self._todo} candidates done" + (f": {outcomes}{best}" if outcomes else "")


def _not_judged(item: Item, error: Exception) -> dict[str, object]:
    return {"task": item.task.name, "candidate": item.name, "outcome": None, "reason": str(error)}


def _known(out: Path, protocol: EvalProtocol, device: str, torch: str | None) -> set[str]:
    """Keys of the lines in `out` that were judged by `protocol` on `device` with `torch`.

    A torn line does not count, nor one that timed out where other limits are given now.
    """
    keys = set()
    for line in objects(out):
        if not line.get("outcome"):
            continue
        by = str(line.get("protocol"))
        same = by == protocol.id or (line["outcome"] != "timed_out" and by.startswith(f"{protocol.rules}/"))
        if same and (line.get("device"), line.get("torch")) == (device, torch):
            keys.add(str(line.get("key")))
    return keys


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
                yield Item(name=str(file), task=task, source=_read(file, task))
            except UserError as error:
                yield Item(name=str(file), task=task, source="", fault=str(error))
        return
    for number, text in enumerate(_lines(source), start=1):
        if text.strip():
            yield _line_item(text, f"{source}:{number}", task, kernelbench)


def _line_item(text: str, where: str, task: Task | None, kernelbench: Path | None) -> Item:
    try:
        line = json.loads(text)
        source = codec.valid_text(line["source"]).removeprefix("\ufeff")
        name = codec.valid_text(str(line.get("id", where)))
    except (AttributeError, ValueError, KeyError, TypeError):
        raise UserError(f"{where}: expected a JSON object with a 'source', not {text[:80]!r}") from None
    if "task" in line:
        try:
            task = shared.find_task(str(line["task"]), None, kernelbench, "")
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


def _read(path: Path, task: Task) -> str:
    """The kernel in the file; one in the form of the task's format as a source that defines `ModelNew`."""
    from kbopt.tasks import as_model

    try:
        text = read_source(path)
    except IsADirectoryError:
        raise UserError(
            f"cannot read {path}: it is a folder; --kernels judges all of its .py files"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}. Give a Python file.") from None
    return as_model(text, str(path), task)


def _lines(path: Path) -> list[str]:
    """JSON lines end at line feeds alone: a string may hold what `splitlines` parts at as well."""
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}. Give JSON lines in UTF-8, or a folder.") from None


def _request(item: Item, protocol: EvalProtocol) -> EvalRequest:
    return EvalRequest(
        task=item.task, source=item.source, protocol=protocol, kernelbench=True, baselines=True
    )


def headline(result: Result, verdict: Verdict = "strict") -> str:
    """The outcome in one line, by the strict verdict, KernelBench's or both."""
    if result.kernelbench and verdict != "strict":
        from kbopt.reporting.evidence import kernelbench_text

        said = f"by KernelBench's own protocol {kernelbench_text(result.kernelbench)}"
        return said if verdict == "kernelbench" else f"{headline(result)}; {said}"
    outcome = result.outcome
    if isinstance(outcome, Measured):
        low, high = outcome.speedup_ci
        return f"measured, {outcome.speedup:.2f}x [{low:.2f}, {high:.2f}]"
    return f"{outcome_name(outcome)}: {outcome.reason.splitlines()[0] if outcome.reason else ''}"


def _text(item: Item, result: Result, verdict: Verdict) -> str:
    lines = [f"{item.name} on {item.task.name}, {result.device}"]
    if verdict != "kernelbench" or not result.kernelbench:
        lines.append(f"  {headline(result)}")
    if verdict != "strict" and result.kernelbench:
        fields = codec.fields_of(result.kernelbench).items()
        lines += [f"  {name}: {'not timed' if value == -1.0 else value}" for name, value in fields]
    times = ", ".join(f"{name} {value:.2f} s" for name, value in codec.fields_of(result.seconds).items())
    return "\n".join([*lines, f"  {times}", "", result.feedback])
