"""Many candidates judged in one go: a JSON line for each as soon as it is, and none of them twice."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from kbopt.cli import INFRA_ERROR, USER_ERROR
from kbopt.cli.json_lines import appending
from kbopt.cli.judged_lines import judged_lines
from kbopt.cli.output import to_stderr
from kbopt.config import BackendConfig
from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest, Result
from kbopt.core.outcomes import Measured, may_be_mended, outcome_name
from kbopt.core.protocol import EvalProtocol, Verdict
from kbopt.core.task import Task
from kbopt.core.text import plural
from kbopt.evaluation.sandbox.memory import REMEDY

if TYPE_CHECKING:
    from kbopt.core.ports import Backend


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One candidate of a batch: `name` is its file or the `id` of its JSON line.

    `fault` says why it cannot be judged, "" where it can. `protocol` is None where the batch's holds.
    """

    name: str
    task: Task
    source: str
    fault: str = ""
    protocol: EvalProtocol | None = None

    @property
    def key(self) -> str:
        text = f"{self.name}\0{self.task.key}\0{self.source}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


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
        "workloads": [codec.fields_of(workload) for workload in measured.workloads] if measured else [],
        "device": result.device,
        "protocol": result.protocol,
        "seconds": codec.fields_of(result.seconds),
        "kernelbench": codec.fields_of(result.kernelbench) if result.kernelbench else None,
        "feedback": result.feedback,
    }


def request(item: Item, protocol: EvalProtocol, *, baselines: bool = True) -> EvalRequest:
    """The item with what a search leaves out: KernelBench's verdict, and the baselines where asked for."""
    return EvalRequest(
        task=item.task, source=item.source, protocol=protocol, kernelbench=True, baselines=baselines
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


def owner(out: Path) -> str:
    """The name under which a spool is asked, so that the same command finds its requests again."""
    return hashlib.sha256(str(out.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]


async def opened(backend: Backend) -> str:
    """The device, once it is there."""
    from kbopt.backends.opening import open_aloud

    return (await open_aloud(backend, backend.open(), to_stderr)).device


class Batch:
    """Streams a JSON line for each item, in the order in which they are done. `worst` is the exit code.

    `describe` gives a result's fields. Without `baselines` no speedup is measured over anything but eager. A
    refusal of the backend, such as of a task that cannot be scored, is asked for again by a later batch
    unless `keeps_refusals`.
    """

    def __init__(
        self,
        backend: Backend,
        config: BackendConfig,
        protocol: EvalProtocol,
        out: Path | None,
        *,
        baselines: bool = True,
        keeps_refusals: bool = False,
        describe: Callable[[Item, Result], Mapping[str, object]] = document,
    ) -> None:
        self._backend = backend
        self._protocol = protocol
        self._out = out
        self._baselines = baselines
        self._keeps_refusals = keeps_refusals
        self._describe = describe
        self.torch = importlib.metadata.version("torch") if config.name == "local" else None
        self._outcomes: Counter[str] = Counter()
        self._best: tuple[float, str] | None = None
        self._done = self._todo = 0
        self.lines: dict[str, Mapping[str, Any]] = {}
        """The line of each key: from `out` where it holds one, else of this batch."""
        self.device = ""
        """Which one judges, once it is there; of a spool perhaps only once it has judged something."""
        self.worst = 0

    async def run(self, items: Sequence[Item]) -> None:
        """Judge what `out` does not hold. One that cannot be judged gets its line, and the others go on."""
        try:
            self.device = await opened(self._backend)
            if self._out:
                self.lines = known(
                    self._out,
                    {item.key: self._protocol_of(item) for item in items},
                    self.device,
                    self.torch,
                    baselines=self._baselines,
                    refusals=self._keeps_refusals,
                )
            again = sum(map(_may_be_mended, self.lines.values()))
            todo = [i for i in items if i.key not in self.lines or _may_be_mended(self.lines[i.key])]
            self._todo = len(todo)
            click.echo(f"{plural(len(items), 'candidate')}, {len(items) - len(todo)} judged before", err=True)
            if again:
                click.echo(
                    f"{again} more failed then, perhaps for want of a header, a package or memory, and "
                    f"{'is' if again == 1 else 'are'} judged again",
                    err=True,
                )
            places = asyncio.Semaphore(self._backend.max_in_flight)
            with appending(self._out) if self._out else nullcontext(sys.stdout) as sink:
                async with asyncio.TaskGroup() as group:
                    for item in todo:
                        group.create_task(self._judge(item, places, sink))
        finally:
            await self._backend.close()

    async def _judge(self, item: Item, places: asyncio.Semaphore, sink: TextIO) -> None:
        from kbopt.evaluation.transport.untrusted import one_line

        fields: Mapping[str, object]
        result: Result | None = None
        try:
            if item.fault:
                raise UserError(item.fault)
            async with places:
                asked = request(item, self._protocol_of(item), baselines=self._baselines)
                result = (await self._backend.evaluate([asked]))[0]
        except (UserError, InfraError) as error:
            self.worst = max(self.worst, USER_ERROR if isinstance(error, UserError) else INFRA_ERROR)
            self.device = self.device or (await self._backend.status()).device
            fields, said = self._not_judged(item, error), f"not judged: {error}"
        else:
            fields, said = self._describe(item, result), headline(result)
            if isinstance(result.outcome, Measured):
                self._best = max(self._best or (0.0, ""), (result.outcome.speedup, item.name))
        line = {"key": item.key, **fields, "torch": self.torch}
        if result and may_be_mended(result.outcome):
            line["may_be_mended"] = True
        if not self._baselines:
            line["baselines"] = False
        before = self.lines.get(item.key, {})
        if (before.get("outcome"), before.get("reason")) != (line["outcome"], line["reason"]):
            print(json.dumps(line), file=sink, flush=True)
        self.lines[item.key] = line
        self._done += 1
        self._outcomes[str(fields["outcome"] or "not judged")] += 1
        to_stderr(f"[{self._done}/{self._todo}] {one_line(item.name)}: {said}")

    def _protocol_of(self, item: Item) -> EvalProtocol:
        return item.protocol or self._protocol

    def _not_judged(self, item: Item, error: Exception) -> dict[str, object]:
        fields: dict[str, object] = {
            "task": item.task.name,
            "candidate": item.name,
            "outcome": None,
            "reason": str(error),
        }
        if self._keeps_refusals and isinstance(error, UserError):
            fields |= {"refused": True, "device": self.device, "protocol": self._protocol_of(item).id}
        return fields

    def summary(self) -> str:
        """Such as `3 of 4 candidates done: 2 measured, 1 crashed; best 2.10x, k.py`."""
        outcomes = ", ".join(f"{count} {name}" for name, count in self._outcomes.most_common())
        best = f"; best {self._best[0]:.2f}x, {self._best[1]}" if self._best else ""
        return f"{self._done} of {self._todo} candidates done" + (f": {outcomes}{best}" if outcomes else "")


def _may_be_mended(line: Mapping[str, Any]) -> bool:
    """Whether what a line says may be otherwise now, on the same device and with the same torch."""
    return line.get("may_be_mended") is True or REMEDY in str(line.get("reason"))


def known(
    out: Path,
    protocols: Mapping[str, EvalProtocol],
    device: str,
    torch: str | None,
    *,
    baselines: bool = True,
    refusals: bool = False,
) -> dict[str, Mapping[str, Any]]:
    """The lines in `out` by their keys: those judged on `device` with `torch` by the protocol of their key.

    Where `device` is not known yet, as of a new spool, it is that of the last line. A torn line does not
    count, nor one that timed out where other limits are given now, nor one without `baselines` where they
    are asked for. What the backend refused counts with `refusals`.
    """
    lines: dict[str, Mapping[str, Any]] = {}
    found, faults = judged_lines(out)
    for fault in faults:
        to_stderr(fault)
    device = device or next((str(line["device"]) for line in reversed(found) if line.get("device")), "")
    for line in found:
        if not line.get("outcome") and not (refusals and line.get("refused")):
            continue
        by, protocol = str(line.get("protocol")), protocols.get(str(line.get("key")))
        if protocol is None:
            continue
        same = by == protocol.id or (line["outcome"] != "timed_out" and by.startswith(f"{protocol.rules}/"))
        if (line.get("device"), line.get("torch")) != (device, torch) or not same:
            continue
        if line.get("baselines", True) or not baselines:
            lines[str(line.get("key"))] = line
    return lines
