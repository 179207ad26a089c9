"""`kbopt audit`: what a set of published kernels claims, and what of it can be confirmed."""

from __future__ import annotations

import asyncio
import hashlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from kbopt.cli import INFRA_ERROR, parsed
from kbopt.cli.batch import Batch, Item, document, owner
from kbopt.cli.grouped import Command, option
from kbopt.cli.options.backend import backend_options
from kbopt.cli.options.protocol import protocol_options
from kbopt.cli.options.task import kernelbench_option
from kbopt.cli.output import to_stderr
from kbopt.cli.values import Name
from kbopt.config import BackendConfig
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import Result
from kbopt.core.outcomes import Measured, Rejected
from kbopt.core.protocol import EvalProtocol, Precision
from kbopt.core.text import plural
from kbopt.tasks import precision_of
from kbopt.tasks.published import Broken, Entry, Form, Published, PublishedSet, read_set

if TYPE_CHECKING:
    from kbopt.reporting.audit import Audited
    from kbopt.reporting.audit_page import Header

RESULTS, PAGE, KERNELS, TASKS = "results.jsonl", "audit.html", "kernels", "tasks"
"""What an audit's folder holds: the lines, the page, and each kernel and task as it was judged."""
_MOST_FAULTS = 5
"""Unreadable entries that are named on stderr. The page names all."""
_FAULT_CHARACTERS = 300
"""Characters of one at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel(Item):
    """A kernel of a set, known by its task and source alone: under another name it is not judged again."""

    @property
    def key(self) -> str:
        text = f"{self.task.key}\0{self.source}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@click.command("audit", cls=Command, short_help="Judge a set of published kernels: what are they worth?")
@click.argument("path", metavar="SET", type=click.Path(path_type=Path))
@option(
    "--format",
    "form",
    type=Name("format", Form),
    default="auto",
    help="What the set is; auto finds it out. docs/audit.md says what each is.",
)
@kernelbench_option
@option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder of the lines and the page; what it holds is not judged again. Default: audits/SET.",
)
@option("--limit", type=click.IntRange(1), help="Only the first so many entries. Default: all.")
@option(
    "--baselines",
    is_flag=True,
    help="Measure also over torch.compile, max-autotune and a CUDA graph, which takes minutes a task.",
)
@protocol_options
@backend_options
@click.pass_context
def audit(
    ctx: click.Context,
    /,
    path: Path,
    form: Form,
    kernelbench: Path | None,
    out: Path | None,
    limit: int | None,
    baselines: bool,
    **given: Any,
) -> None:
    """Judge a set of published kernels, and say what of its claims can be confirmed.

    SET is a folder or file that you have: KernelBench pairs, JSON lines, the published files of CUDA-L1,
    KernelBenchLeaderboard or AdaExplore, or solutions of SOL-ExecBench or FlashInfer-Bench. Each kernel gets
    the strict verdict and KernelBench's own. Stdout has the summary, stderr the progress, and --out a page
    and a JSON line for each kernel. The same command goes on after Ctrl-C. A bad kernel is an answer, not an
    error: the exit code is 0.

    \b
    kbopt audit experiments/published --device cpu
    kbopt audit CUDA-L1/optimized_cuda_code/a100.json --limit 20
    kbopt audit kernels.jsonl --kernelbench ~/KernelBench --baselines
    """
    from kbopt.reporting.audit import sums, told
    from kbopt.reporting.text import printable

    if given["baseline"] != "eager":
        raise UserError(
            f"claims are over eager PyTorch: leave --baseline {given['baseline']} out. --baselines measures "
            "over the others as well."
        )
    options = _given_options(ctx, set(given))
    found = read_set(path, form, kernelbench)
    entries = found.entries[:limit]
    sound = [item for item in map(_kernel, entries) if item is not None]
    kernels = {item.key: item for item in reversed(sound)}  # the first of equal ones gives the name
    if not kernels:
        raise UserError(f"{path} has no kernel that can be judged: {_first_fault(entries)}")
    protocol, config = parsed.eval_protocol(given), parsed.backend_config(given)
    out = out or Path("audits") / (path.resolve().stem or "set")
    _make(out)
    twice = len(sound) - len(kernels)
    same = f", {twice} with the kernel and task of another" if twice else ""
    to_stderr(f"{path}: {plural(len(entries), 'entry', 'entries')} in the format {found.form}{same}")
    if own := sum(isinstance(entry, Published) and entry.own_reference for entry in entries):
        to_stderr(
            f"{own} of them bring their own reference, which says what is correct and runs outside of the "
            "sandbox: read it before you trust it"
        )
    judge = _Judge(config, protocol, out, baselines)

    _tell_faults(entries)

    def rows() -> Sequence[Audited]:
        return [_row(entry, judge.lines, out, options) for entry in entries]

    def write(rows: Sequence[Audited]) -> None:
        _write(_header(path, found, judge, ctx), rows, out, list(kernels.values()))

    try:
        judge.run(list(reversed(kernels.values())))
    except KeyboardInterrupt:
        if judge.lines:
            write(rows())
            to_stderr(f"page of what was judged: {out / PAGE}")
        raise
    judged = rows()
    click.echo("\n".join(map(printable, told(sums(judged)))))  # What a full disk cannot take away.
    write(judged)
    click.echo(f"page: {out / PAGE}")
    if judge.is_lost:
        to_stderr("a machine failed for some; the same command asks for those again")
        sys.exit(INFRA_ERROR)


def _kernel(entry: Entry) -> Kernel | None:
    if not isinstance(entry, Published):
        return None
    return Kernel(name=entry.name, task=entry.task, source=entry.source)


def _first_fault(entries: Sequence[Entry]) -> str:
    faults = [entry.reason for entry in entries if isinstance(entry, Broken)]
    return faults[0] if faults else "its authors left all of them out. Give another set."


def _tell_faults(entries: Sequence[Entry]) -> None:
    """Name entries that cannot be read, the first ones each."""
    from kbopt.evaluation.transport.untrusted import one_line

    broken = [entry for entry in entries if isinstance(entry, Broken)]
    for entry in broken[:_MOST_FAULTS]:
        to_stderr(f"left out: {one_line(entry.reason, _FAULT_CHARACTERS)}")
    if len(broken) > _MOST_FAULTS:
        to_stderr(f"left out: {len(broken) - _MOST_FAULTS} more that cannot be read, which the page names")


def _make(out: Path) -> None:
    try:
        for folder in (out, out / KERNELS, out / TASKS):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {out}: {error}. Choose another folder with --out.") from None


class _Judge:
    """Judges the kernels by the precision that their tasks state. `lines` has what was judged, by key."""

    def __init__(self, config: BackendConfig, protocol: EvalProtocol, out: Path, baselines: bool) -> None:
        self._config = config
        self._protocol = protocol
        self._out = out / RESULTS
        self._baselines = baselines
        self.lines: dict[str, Mapping[str, Any]] = {}
        self.device = ""
        self.torch: str | None = None
        self.protocols: tuple[str, ...] = ()

    @property
    def is_lost(self) -> bool:
        """Whether a machine failed before a kernel was judged."""
        return any(line["outcome"] is None and not line.get("refused") for line in self.lines.values())

    def run(self, items: Sequence[Kernel]) -> None:
        """Raises `InfraError` where the lines cannot be written, and what the backend raises at its start."""
        from kbopt.compose.checks import check_device, check_simulated

        if self._config.name == "local":
            check_device(self._config.device)
        for item in items:
            check_simulated(item.task, self._config.name)
        by_precision = {
            precision: replace(self._protocol, precision=precision)
            for precision in dict.fromkeys(map(self._precision, items))
        }
        self.protocols = tuple(protocol.id for protocol in by_precision.values())
        self._batch([replace(item, protocol=by_precision[self._precision(item)]) for item in items])

    def _precision(self, item: Kernel) -> Precision:
        said = click.get_current_context().get_parameter_source("precision") is ParameterSource.COMMANDLINE
        return (
            self._protocol.precision if said else precision_of(item.task.source) or self._protocol.precision
        )

    def _batch(self, items: Sequence[Kernel]) -> None:
        from kbopt.compose.backends import open_backend

        backend = open_backend(
            self._config,
            owner(self._out) if self._config.name == "spool" else "",
            needs_sandbox=not self._config.no_sandbox,
            keeps_refusals=True,
        )
        batch = Batch(
            backend,
            self._config,
            self._protocol,
            self._out,
            baselines=self._baselines,
            keeps_refusals=True,
            describe=described,
        )
        try:
            asyncio.run(batch.run(items))
        except KeyboardInterrupt:
            to_stderr(f"stopped; {batch.summary()}; the same command goes on")
            raise
        except OSError as error:  # closing the file fails as writing to it did
            raise InfraError(
                f"cannot write {self._out}: {error}. Make room: what is in it stays, and the same command "
                "goes on"
            ) from None
        finally:
            self.lines, self.torch = batch.lines, batch.torch
            devices = dict.fromkeys(str(line.get("device") or "") for line in batch.lines.values())
            self.device = ", ".join(filter(None, devices)) or batch.device
        to_stderr(batch.summary())


def described(item: Item, result: Result) -> dict[str, object]:
    """The JSON of `kbopt eval`, with the family of a rejection and whether a kernel of its own was seen."""
    outcome = result.outcome
    return {
        **document(item, result),
        "family": outcome.family if isinstance(outcome, Rejected) else None,
        "custom_kernel": outcome.audit.custom_kernel if isinstance(outcome, Measured) else None,
    }


def _row(entry: Entry, lines: Mapping[str, Mapping[str, Any]], out: Path, options: Sequence[str]) -> Audited:
    from kbopt.reporting.audit import Audited, standing_of

    kernel = _kernel(entry)
    if not isinstance(entry, Published) or kernel is None:
        broken = isinstance(entry, Broken)
        return Audited(
            name=entry.name,
            where=entry.where,
            task="",
            standing="broken" if broken else "empty",
            reason=entry.reason if isinstance(entry, Broken) else "The set has no kernel here.",
            line={},
        )
    line = lines.get(kernel.key, {})
    command = ["kbopt", "eval", "--task", _task_file(out, kernel), "--kernel", _kernel_file(out, kernel)]
    return Audited(
        name=entry.name,
        where=entry.where,
        task=entry.task.name,
        standing=standing_of(line) if line else "waiting",
        claim=entry.claim.speedup if entry.claim else None,
        claimed_on=entry.claim.on if entry.claim else "",
        own_reference=entry.own_reference,
        source=entry.source,
        command=shlex.join([*map(str, command), *options]),
        line=line,
    )


def _task_file(out: Path, kernel: Kernel) -> Path:
    return out / TASKS / f"{kernel.task.key}.py"


def _kernel_file(out: Path, kernel: Kernel) -> Path:
    return out / KERNELS / f"{kernel.key}.py"


def _write(header: Header, rows: Sequence[Audited], out: Path, kernels: Sequence[Kernel]) -> None:
    """The page, and the sources that its commands name."""
    from kbopt.reporting.audit_page import write_audit

    for kernel in kernels:
        _save(_task_file(out, kernel), kernel.task.source)
        _save(_kernel_file(out, kernel), kernel.source)
    write_audit(header, rows, out / PAGE)


def _save(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InfraError(f"cannot write {path}: {error}. Make room; the same command goes on") from None


def _header(path: Path, found: PublishedSet, judge: _Judge, ctx: click.Context) -> Header:
    from kbopt.reporting.audit_page import Header

    words = ["kbopt", "audit", str(path), *_given_options(ctx, set(ctx.params) - {"path"})]
    return Header(
        name=path.resolve().name,
        path=str(path),
        form=found.form,
        device=judge.device,
        torch=judge.torch,
        protocol=", ".join(judge.protocols),
        command=shlex.join(words),
    )


def _given_options(ctx: click.Context, names: set[str]) -> list[str]:
    """The options among `names` that the command line gives, as it could give them again."""
    words: list[str] = []
    for param in ctx.command.params:
        said = param.name and ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
        if param.name in names and said and isinstance(param, click.Option):
            words += [param.opts[0]] if param.is_flag else [param.opts[0], str(ctx.params[param.name])]
    return words
