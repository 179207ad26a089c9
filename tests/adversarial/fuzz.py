"""Candidates whose processes answer with broken messages: none may end the judge, or be believed.

`python3 tests/adversarial/fuzz.py [--minutes 5] [--first 0] [--device cpu|cuda]`. Each candidate has a
number, from which all that it breaks follows; one that ends the judge is repeated by `--first NUMBER`. Prints
how the candidates ended, and exits with 1 if one was an error of the evaluator or ended the judge.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.outcomes import Measured, outcome_name
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.evaluation.server.judge_handle import JudgeHandle
from kbopt.evaluation.server.service import Service

TASK = """
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x)


def get_inputs():
    return [torch.randn(64, 64)]


def get_init_inputs():
    return []
"""
PROTOCOL = EvalProtocol(trials=2, timed=10, timeout_s=5.0)
SOURCE = (Path(__file__).parent / "fuzzed" / "breaks_messages.py").read_text()


@dataclass(slots=True)
class Fuzzed:
    """How the candidates ended, and what was wrong with that."""

    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def fuzz(device: str, numbers: Iterable[int], until: float, folder: Path) -> Fuzzed:
    """Judge the candidates with these numbers until the monotonic clock says `until`, by one judge."""
    fuzzed = Fuzzed()
    task = Task(name="fuzzed", source=TASK)
    service = Service(device, folder)
    try:
        honest = EvalRequest(task=task, source=task.equal_code, protocol=PROTOCOL)
        judge = _judged(service, honest, "the honest one before", fuzzed)
        for number in numbers:
            if time.monotonic() > until:
                break
            request = EvalRequest(
                task=task, source=SOURCE.replace("NUMBER = 0", f"NUMBER = {number}", 1), protocol=PROTOCOL
            )
            now = _judged(service, request, f"number {number}", fuzzed)
            if now is not judge:
                fuzzed.problems.append(f"number {number} ended the judge")
                judge = now
        if _judged(service, honest, "the honest one after", fuzzed) is not judge:
            fuzzed.problems.append("the judge had ended in the end")
    finally:
        service.close()
    return fuzzed


def _judged(service: Service, request: EvalRequest, who: str, fuzzed: Fuzzed) -> JudgeHandle:
    """The judge there is afterwards. An honest candidate has to be measured."""
    is_honest = request.source == request.task.equal_code
    try:
        outcome = service.evaluate(request).outcome
    except (InfraError, UserError) as error:
        fuzzed.problems.append(f"{who}: {type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001 - any other is what is looked for
        fuzzed.problems.append(f"{who} got through: {type(error).__name__}: {error}")
    else:
        fuzzed.outcomes[outcome_name(outcome)] += 1
        if is_honest and not isinstance(outcome, Measured):
            fuzzed.problems.append(f"{who}: {outcome}")
        if isinstance(outcome, Measured) and outcome.speedup > 5:
            fuzzed.problems.append(f"{who}: {outcome.speedup:.3g}x")
    return service._judges.start(request)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--first", type=int, default=0, help="the first candidate's number")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = sys.path[0]  # of the fork server, where the project is not installed
    until = time.monotonic() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as folder:
        found = fuzz(arguments.device, count(arguments.first), until, Path(folder))
    print(", ".join(f"{number} {name}" for name, number in found.outcomes.most_common()))
    print("\n".join(found.problems) or "no problem")
    sys.exit(bool(found.problems))


if __name__ == "__main__":
    main()
