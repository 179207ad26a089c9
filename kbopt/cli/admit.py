"""`kbopt tasks --admit`: which tasks of a KernelBench checkout can be scored here, and what that takes."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbopt.cli import INFRA_ERROR
from kbopt.cli.batch import opened
from kbopt.cli.json_lines import appending, check_lines, objects
from kbopt.cli.output import to_stderr
from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import Admitted, EvalRequest, Refused
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.core.text import first_line
from kbopt.evaluation.sandbox.memory import REMEDY
from kbopt.reporting.text import plural, printable
from kbopt.tasks import kernelbench as levels
from kbopt.tasks.subsets import level_numbers

if TYPE_CHECKING:
    from kbopt.backends.local import LocalBackend

HEADER = (
    f"{'task':<12}{'outcome':<10}{'eager ms':>10}{'floor ms':>10}{'device GiB':>12}{'host GiB':>10}"
    f"{'admitted in s':>15}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A task of which nothing was found out, since a machine failed."""

    reason: str


OUTCOMES: Mapping[str, type[Admitted | Refused | Lost]] = {
    "scorable": Admitted,
    "refused": Refused,
    "error": Lost,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What is said of one task. `key` is the hash of its source, empty where that is no task; `protocol` are
    the rules that it was asked by.
    """

    task: str
    key: str
    torch: str
    protocol: str
    report: Admitted | Refused | Lost

    @property
    def outcome(self) -> str:
        return next(name for name, kind in OUTCOMES.items() if isinstance(self.report, kind))

    @property
    def document(self) -> dict[str, object]:
        """As JSON, with the report's own fields beside the others."""
        named = {name: getattr(self, name) for name in ("task", "key", "outcome", "torch", "protocol")}
        return {**named, **codec.fields_of(self.report)}

    @property
    def text(self) -> str:
        start, report = f"{self.task:<12}{self.outcome:<10}", self.report
        if not isinstance(report, Admitted):
            return f"{start}{printable(first_line(report.reason, 400))}"
        return (
            f"{start}{report.reference_ms:>10.4g}{report.floor_ms:>10.4g}{report.device_bytes / 2**30:>12.2f}"
            f"{report.host_bytes / 2**30:>10.2f}{report.seconds:>15.1f}"
        )


def parsed(document: dict[str, Any]) -> Line | None:
    """The line that gave `document`; None for another JSON object."""
    rest = dict(document)
    try:
        kind = OUTCOMES[rest.pop("outcome")]
        named = {name: str(rest.pop(name)) for name in ("task", "key", "torch", "protocol")}
        return Line(**named, report=codec.decode(kind, rest))
    except (KeyError, TypeError, codec.CodecError):
        return None


def problems_of(checkout: Path | None, text: str) -> tuple[levels.Problem, ...]:
    """Those of the levels in a list such as `1,2,3`. Raises `UserError` where there are none."""
    wanted = level_numbers(text)
    every = levels.problems(checkout)
    if not every:
        raise UserError(f"--admit needs a checkout: give --kernelbench DIR or {levels.CHECKOUT_VARIABLE}")
    found = tuple(problem for problem in every if problem.level in wanted)
    if not found:
        held = ", ".join(str(level) for level in sorted({problem.level for problem in every}))
        raise UserError(f"--levels {text!r}: the checkout has no problems of these; it has level {held}")
    return found


def admit(
    problems: Sequence[levels.Problem],
    checkout: Path | None,
    *,
    device: str,
    protocol: EvalProtocol,
    out: Path | None,
    as_json: bool,
) -> int:
    """Say a line of each problem on stdout as soon as it is known. Returns the exit code.

    What `out` holds for the same source, device, torch and rules is said from there; the rest is appended.
    """
    from kbopt.compose.backends import open_local
    from kbopt.compose.checks import check_device

    check_device(device)
    if out:
        check_lines(out)
    table = _Table(open_local(device), checkout, protocol, as_json)
    try:
        asyncio.run(table.fill(problems, out))
    except KeyboardInterrupt:
        hint = "the same command goes on" if out else "with --out FILE the same command would go on"
        to_stderr(f"stopped; {table.summary}; {hint}")
        raise
    to_stderr(table.summary)
    return INFRA_ERROR if any(isinstance(line.report, Lost) for line in table.lines) else 0


class _Table:
    """The lines so far, in the order of the problems."""

    def __init__(
        self, backend: LocalBackend, checkout: Path | None, protocol: EvalProtocol, as_json: bool
    ) -> None:
        self.lines: list[Line] = []
        self._backend = backend
        self._checkout = checkout
        self._protocol = protocol
        self._as_json = as_json
        self._torch = importlib.metadata.version("torch")

    async def fill(self, problems: Sequence[levels.Problem], out: Path | None) -> None:
        try:
            device = await opened(self._backend)
            known = self._known(out, device) if out else {}
            if not self._as_json:
                click.echo(HEADER)
            with appending(out) if out else nullcontext() as sink:
                for number, problem in enumerate(problems, start=1):
                    to_stderr(f"[{number}/{len(problems)}] {problem.name}")
                    line = await self._line(problem, known, device)
                    if sink is not None and line not in known.values():
                        print(json.dumps(line.document), file=sink, flush=True)
                    self.lines.append(line)
                    click.echo(json.dumps(line.document) if self._as_json else line.text)
        finally:
            await self._backend.close()

    def _known(self, out: Path, device: str) -> dict[tuple[str, str], Line]:
        """The lines of `out` that would be the same now, by name and key of the task."""
        found: dict[tuple[str, str], Line] = {}
        for document in objects(out):
            line = parsed(document)
            if line is None or isinstance(line.report, Lost) or line.report.device != device:
                continue
            if isinstance(line.report, Refused) and REMEDY in line.report.reason:
                continue  # There may be more memory now.
            if (line.torch, line.protocol) == (self._torch, self._protocol.rules):
                found[line.task, line.key] = line
        return found

    async def _line(
        self, problem: levels.Problem, known: Mapping[tuple[str, str], Line], device: str
    ) -> Line:
        key = ""
        report: Admitted | Refused | Lost
        try:
            task = levels.load(problem, self._checkout)
            key = task.key
            if line := known.get((problem.name, key)):
                return line
            report = await self._described(task)
        except UserError as error:  # a file that is no task
            report = Refused(device=device, seconds=0.0, test="", reason=str(error))
        except InfraError as error:
            report = Lost(reason=str(error))
        return Line(
            task=problem.name, key=key, torch=self._torch, protocol=self._protocol.rules, report=report
        )

    async def _described(self, task: Task) -> Admitted | Refused:
        return await self._backend.describe(EvalRequest(task=task, source="", protocol=self._protocol))

    @property
    def summary(self) -> str:
        """Such as `5 tasks: 3 scorable, 2 refused (1 zeros, 1 other)`."""
        outcomes = Counter(line.outcome for line in self.lines)
        reports = [line.report for line in self.lines]
        tests = Counter(report.test or "other" for report in reports if isinstance(report, Refused))
        said = [f"{outcomes[name]} {name}" for name in OUTCOMES if outcomes[name]]
        by_test = ", ".join(f"{count} {name}" for name, count in tests.most_common())
        said = [f"{words} ({by_test})" if words.endswith("refused") else words for words in said]
        return f"{plural(len(reports), 'task')}: {', '.join(said) or 'none was asked'}"
