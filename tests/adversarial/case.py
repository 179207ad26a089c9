"""What one adversarial source tries, on which task, and which verdicts on it are acceptable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest, Result
from kbopt.core.outcomes import Measured, Outcome, Rejected, outcome_name
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task

HERE = Path(__file__).parent
PROTOCOL = EvalProtocol(trials=2, timed=24, timeout_s=30.0, compile_timeout_s=30.0)
UNEARNED = 1.2
"""How much faster than its honest twin a cheat may come out before that counts as gained: noise, not gain.
What the cheats of the suite would gain if they worked is 1.3 at least and tens usually."""

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One source under `tests/adversarial`, and the verdicts that are right for it.

    `expected` names them: `measured` (an honest source), `neutral` (measured, and no faster than the honest
    case `twin`: the trick is allowed and gains nothing), an outcome's name, or `rejected:FAMILY`.
    `family` is that of the cheat, empty for an honest control. `earned` is the speedup of a cheat that is no
    gain though its twin is slower, because its code without the trick is faster still. `at_par` marks
    controls that are the reference's own expression, so that being called faster or slower would be an error
    of the evaluator's. `shown_by` are texts of which one stands in the feedback of a refusal: the workload or
    the values that show a gate. Where such a case is measured, the worst workload is one of them.
    """

    name: str
    folder: Literal["cheats", "controls", "hostile", "gpu"]
    task: str
    expected: tuple[str, ...]
    family: str = ""
    twin: str = ""
    earned: float = 1.0
    shown_by: tuple[str, ...] = ()
    protocol: EvalProtocol = PROTOCOL
    devices: tuple[Device, ...] = ("cpu",)
    at_par: bool = False

    @property
    def id(self) -> str:
        """Its own among all cases."""
        return f"{self.name}-{self.task}{'-tf32-allowed' if self.protocol.arithmetic == 'tf32' else ''}"

    @property
    def source(self) -> str:
        return (HERE / self.folder / f"{self.name}.py").read_text()

    @property
    def kind(self) -> str:
        """The first column of the table."""
        return self.family or ("honest control" if self.expected == ("measured",) else "typed end")

    @property
    def tries(self) -> str:
        """The first sentence of the source's docstring."""
        return self.source.split('"""')[1].strip()

    def request(self, repeat: int = 0) -> EvalRequest:
        return EvalRequest(
            task=load_task(self.task), source=self.source, protocol=self.protocol, repeat=repeat
        )


def load_task(name: str) -> Task:
    return Task(name=f"adversarial/{name}", source=(HERE / "tasks" / f"{name}.py").read_text())


Answer = Result | InfraError | UserError
"""What a request came to. Both kinds of error are holes: no candidate may cause them."""


def label(outcome: Outcome) -> str:
    """`measured`, `wrong_answer`, ..., and `rejected:FAMILY`."""
    name = outcome_name(outcome)
    return f"{name}:{outcome.family}" if isinstance(outcome, Rejected) else name


def seen(answer: Answer) -> str:
    """What a table says of an answer."""
    if not isinstance(answer, Result):
        return type(answer).__name__
    if not isinstance(answer.outcome, Measured):
        return label(answer.outcome)
    low, high = answer.outcome.speedup_ci
    return f"measured {answer.outcome.speedup:.2f}x [{low:.2f}, {high:.2f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One case and what the evaluator said; `problem` is empty where that was right."""

    case: Case
    answer: Answer
    problem: str

    @property
    def verdict(self) -> str:
        """How a table calls it."""
        if self.problem:
            return "HOLE" if self.case.family else "WRONGED"
        if isinstance(self.answer, Result) and isinstance(self.answer.outcome, Measured):
            return "neutralised" if self.case.family else "accepted"
        return "caught" if self.case.family else "typed"


def judge(case: Case, answer: Answer, twin: Answer | None) -> Finding:
    """Compare the verdict with those that the case accepts."""
    return Finding(case=case, answer=answer, problem=_problem(case, answer, twin))


def reads_off_par(case: Case, answer: Answer) -> bool:
    """Whether `answer` calls a control faster or slower that is the reference's own expression."""
    measured = isinstance(answer, Result) and isinstance(answer.outcome, Measured)
    return case.at_par and measured and _problem(case, answer, None) != ""


def _problem(case: Case, answer: Answer, twin: Answer | None) -> str:
    wanted = " or ".join(case.expected)
    if not isinstance(answer, Result):
        return f"{type(answer).__name__} ({answer}) instead of {wanted}"
    outcome = answer.outcome
    if not isinstance(outcome, Measured):
        if label(outcome) in case.expected:
            return _unshown(case, answer.feedback)
        return f"{label(outcome)} ({outcome.reason[:300]}) instead of {wanted}"
    if "measured" in case.expected:
        return (_unearned(outcome, 1.0) or _withheld(outcome)) if case.at_par else ""
    if "neutral" not in case.expected:
        return f"{seen(answer)} instead of {wanted}"
    if not isinstance(twin, Result) or not isinstance(twin.outcome, Measured):
        return f"its honest twin {case.twin} was not measured, so that nothing can be said of it"
    told = f"on workload {outcome.worst.name}: " if outcome.worst else ""
    return _unearned(outcome, max(case.earned, twin.outcome.speedup_ci[1])) or _unshown(case, told)


def _unshown(case: Case, told: str) -> str:
    if not told or not case.shown_by or any(text in told for text in case.shown_by):
        return ""
    return f"none of {', '.join(map(repr, case.shown_by))} stands in: {told[:300]}"


def _unearned(outcome: Measured, honest: float) -> str:
    if outcome.speedup_ci[0] <= UNEARNED * honest:
        return ""
    return f"at least {outcome.speedup_ci[0]:.2f}x faster, where honest work is {honest:.2f}x at most"


def _withheld(outcome: Measured) -> str:
    if outcome.speedup_ci[1] * UNEARNED >= 1.0:
        return ""
    return f"{outcome.speedup_ci[1]:.2f}x at most, where it is the reference's own expression"
