"""The prompts: template files with named placeholders, filled from a brief.

Templates are Python's `string.Template`: `$name` or `${name}`, and `$$` for a dollar sign. Values are put in
as they are and never expanded again, so a kernel full of dollar signs is safe.
"""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from kbopt.core.errors import UserError, unknown_name
from kbopt.core.evaluations import Result
from kbopt.core.languages import Language
from kbopt.core.outcomes import Measured, outcome_name
from kbopt.core.proposals import Brief, Trial
from kbopt.core.protocol import Arithmetic
from kbopt.core.task import Task
from kbopt.core.workloads import shown_source
from kbopt.proposers.answers import MAX_NOTE_CHARS

PLACEHOLDERS: Mapping[str, frozenset[str]] = {
    "system.md": frozenset({"device_facts", "kernel_guide", "passes", "fp32_products", "tuning"}),
    **{f"{language}.md": frozenset({"device_facts"}) for language in get_args(Language)},
    "propose.md": frozenset(
        {
            "task_name",
            "task_source",
            "parent_source",
            "parent_result",
            "parent_feedback",
            "evidence",
            "exemplars",
            "summary",
            "lessons",
        }
    ),
    "first.md": frozenset(
        {"task_name", "task_source", "evidence", "strategy", "exemplars", "summary", "lessons"}
    ),
    "again.md": frozenset({"reason"}),
    "agent.md": frozenset(
        {
            "task_name",
            "device_facts",
            "kernel_guide",
            "passes",
            "evaluations",
            "minutes",
            "files",
            "strategy",
        }
    ),
    "summary.md": frozenset(
        {
            "task_name",
            "task_source",
            "device_facts",
            "language",
            "passes",
            "fp32_products",
            "trials",
            "previous",
        }
    ),
}
"""The template files, and what may stand in each."""

_FORWARD = "Only `forward` is called, and no gradients are asked for."
BOTH_PASSES = (
    "`forward` and its backward are called and timed together, and the gradients of all floating inputs and "
    "parameters are checked, for random gradients of the outputs. So `forward` calls a "
    "`torch.autograd.Function` of yours with a `backward`, whose kernels are what the time is won in, or "
    "computes by differentiable operations; each parameter has the name and shape of `Model`'s."
)

_SPLITS = (
    "In an fp32 task its root mean square may be 128 times the reference's. Splits into several products, "
    "such as 3xTF32, three of scaled fp16 terms or six of bf16 terms, meet that and may use tensor cores; "
    "plain TF32, fp16 and bf16 products do not, and are rejected by their error."
)
_TF32_IN_CONVOLUTIONS = (
    " A task with a convolution is the exception: PyTorch may compute that in TF32, so all products may be "
    "plain TF32 of rounded operands (`cvt.rna`)."
)
_TF32 = (
    "In an fp32 task, plain TF32 products of rounded operands (`cvt.rna`) meet that; fp16 and bf16 products "
    "do not, and are rejected by their error."
)
_TUNED = "A program then tries those values at no cost to you, so spend your effort on the structure."
_NOT_TUNED = (
    "Your answer is measured with the values that it has, so choose these well; the others tell whoever "
    "improves it what to try."
)

SHIPPED = Path(__file__).parent / "prompts"

MAX_FEEDBACK_CHARS = 6_000
MAX_EVIDENCE_CHARS = 4_000
MAX_EXEMPLAR_CHARS = 20_000
MAX_TRIAL_CHARS = 4_000
MAX_TRIALS_CHARS = 48_000
"""Characters of all sources in a question for advice. The best one takes what it needs of them."""
MAX_SUMMARY_CHARS = 8_000
MAX_LESSONS_CHARS = 4_000
MAX_SUMMARY_SUCCESSES = 8
MAX_SUMMARY_FAILURES = 4


@dataclass(frozen=True, slots=True)
class Prompts:
    """A checked set of templates. Made by `load`."""

    templates: Mapping[str, string.Template]

    @staticmethod
    def load(folder: Path | None) -> Prompts:
        """The shipped templates, each replaced by the file of its name in `folder` where there is one.

        Raises `UserError` for a file that is no template, and for a placeholder that is not known.
        """
        return Prompts({name: _template(path, name) for name, path in _paths(folder).items()})

    def system(
        self,
        language: Language,
        device_facts: str,
        *,
        backward: bool = False,
        arithmetic: Arithmetic = "default",
        tunes: bool = False,
    ) -> str:
        """What holds for every proposal: rules, device, language and form of the answer. With `backward` a
        call is forward and backward; with `tunes` the search varies what `# tune:` comments list.
        """
        facts = device_facts.strip() or "Not known."
        guide = self._fill(f"{language}.md", device_facts=facts)
        passes = BOTH_PASSES if backward else _FORWARD
        return self._fill(
            "system.md",
            device_facts=facts,
            kernel_guide=guide,
            passes=passes,
            fp32_products=_fp32_products(language, arithmetic),
            tuning=_TUNED if tunes else _NOT_TUNED,
        )

    def proposal(self, brief: Brief, lessons: str = "") -> str:
        """The question that a brief asks, without sections for which there is nothing to say.

        `lessons` are those of other searches.
        """
        common = {
            "task_name": brief.task.name,
            "task_source": fenced(shown_source(brief.task.source), "python"),
            "evidence": _data(brief.evidence, MAX_EVIDENCE_CHARS),
            "exemplars": "\n\n".join(map(_exemplar, itertools.count(1), brief.exemplars)),
            "summary": _bounded(brief.summary.strip(), MAX_SUMMARY_CHARS),
            "lessons": _data(lessons, MAX_LESSONS_CHARS),
        }
        if brief.parent is None:
            return self._filled_sections("first.md", **common, strategy=_strategy(brief))
        result = brief.parent.results[-1]
        return self._filled_sections(
            "propose.md",
            **common,
            # In full: edits are checked against it line by line.
            parent_source=fenced(brief.parent.candidate.source, "python"),
            parent_result=describe(result),
            parent_feedback=_data(result.feedback, MAX_FEEDBACK_CHARS) or "(none)",
        )

    def agent(
        self,
        brief: Brief,
        language: Language,
        device_facts: str,
        *,
        evaluations: int,
        minutes: float,
        has_lessons: bool = False,
        backward: bool = False,
    ) -> str:
        """What an agent is asked to do, in a folder with the files that it names."""
        facts = device_facts.strip() or "Not known."
        files = []
        if brief.parent is not None:
            files.append(f"- `parent.py`: the kernel to improve. It is {describe(brief.parent.results[-1])}.")
            files.append("- `feedback.txt`: what the judge said of it.")
        for number, trial in enumerate(brief.exemplars, 1):
            files.append(f"- `other_{number}.py`: another kernel. It is {describe(trial.results[-1])}.")
        if brief.evidence:
            of = "the reference" if brief.parent is None else "the kernel to improve"
            files.append(f"- `profile.txt`: what a profile says of {of}.")
        if brief.summary:
            files.append("- `learned.md`: what has been learned so far.")
        if has_lessons:
            files.append("- `lessons.txt`: what other searches taught.")
        return self._fill(
            "agent.md",
            task_name=brief.task.name,
            device_facts=facts,
            kernel_guide=self._fill(f"{language}.md", device_facts=facts),
            passes=BOTH_PASSES if backward else _FORWARD,
            evaluations=str(evaluations),
            minutes=f"{minutes:g}",
            files="\n".join(files),
            strategy=_strategy(brief),
        )

    def again(self, reason: str) -> str:
        """The question after an answer that could not be used."""
        return self._fill("again.md", reason=reason)

    def summary(
        self,
        task: Task,
        trials: Sequence[Trial],
        previous: str,
        *,
        language: Language,
        device_facts: str,
        backward: bool = False,
        arithmetic: Arithmetic = "default",
    ) -> str:
        """The question for new advice from `trials`, oldest first. The rest is as for `system`."""
        best_first = telling(trials)
        shown = map(_tried, best_first, _source_limits(best_first))
        return self._fill(
            "summary.md",
            task_name=task.name,
            task_source=fenced(shown_source(task.source), "python"),
            device_facts=device_facts.strip() or "Not known.",
            language=language,
            passes=BOTH_PASSES if backward else _FORWARD,
            fp32_products=_fp32_products(language, arithmetic),
            trials="\n\n".join(shown) or "None yet.",
            previous=_bounded(previous.strip(), MAX_SUMMARY_CHARS) or "None yet.",
        )

    def _fill(self, name: str, **values: str) -> str:
        return self.templates[name].substitute(values).strip() + "\n"

    def _filled_sections(self, name: str, **values: str) -> str:
        """As `_fill`, without the sections (a heading and what follows it) that end with an empty value."""
        sections = re.split(r"^(?=## )", self.templates[name].template, flags=re.MULTILINE)
        empty = tuple(end for key, value in values.items() if not value for end in (f"${key}", f"${{{key}}}"))
        kept = [one for one in sections if not (one.startswith("## ") and one.rstrip().endswith(empty))]
        given = {key: value or "(none)" for key, value in values.items()}
        return string.Template("".join(kept)).substitute(given).strip() + "\n"


def _fp32_products(language: Language, arithmetic: Arithmetic) -> str:
    """What products an fp32 task may use: the judge allows TF32 on a GPU alone (docs/evaluation.md)."""
    if language == "c" or arithmetic == "ieee":
        return _SPLITS
    return _TF32 if arithmetic == "tf32" else _SPLITS + _TF32_IN_CONVOLUTIONS


def describe(result: Result) -> str:
    """A result in one line."""
    outcome = result.outcome
    if not isinstance(outcome, Measured):
        return f"{outcome_name(outcome).replace('_', ' ')}: {_untrusted(outcome.reason, 500)}"
    low, high = outcome.speedup_ci
    interval = f"95 % interval {low:.3g} to {high:.3g}"
    line = (
        f"correct, {outcome.speedup:.3g} times as fast as the reference ({interval}), "
        f"{outcome.call_ms[0]:.4g} ms a call"
    )
    if outcome.roofline is not None:
        line += f", at {outcome.roofline.share:.0%} of the device's limit"
        if outcome.roofline.limited_by_operations:
            needed_ms = outcome.roofline.reference_ops_ms
            line += f" by bytes; arithmetic is what limits: {needed_ms:.4g} ms for the reference's operations"
    return line


def fenced(text: str, language: str) -> str:
    """`text` in a Markdown fence that nothing in it can close."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def telling(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that a summary is written from: the fastest ones, then the latest failures."""
    measured = [(trial.results[-1].outcome, trial) for trial in trials]
    fastest = sorted(
        ((outcome.speedup, trial) for outcome, trial in measured if isinstance(outcome, Measured)),
        key=lambda pair: pair[0],
        reverse=True,
    )
    failures = [trial for outcome, trial in measured if not isinstance(outcome, Measured)]
    successes = [trial for _, trial in fastest[:MAX_SUMMARY_SUCCESSES]]
    return [*successes, *failures[-MAX_SUMMARY_FAILURES:]]


def _strategy(brief: Brief) -> str:
    if brief.strategy is not None:
        return brief.strategy.text
    return "Start from the kernel to improve." if brief.parent else "Choose it yourself."


def _exemplar(number: int, trial: Trial) -> str:
    source = _bounded(trial.candidate.source, MAX_EXEMPLAR_CHARS)
    return f"### Kernel {number}: {describe(trial.results[-1])}\n\n{fenced(source, 'python')}"


def _source_limits(trials: Sequence[Trial]) -> list[int]:
    """How many characters of each source a summary is written from: of the first as many as in a brief."""
    if len(trials) < 2:
        return [MAX_EXEMPLAR_CHARS] * len(trials)
    left = MAX_TRIALS_CHARS - min(len(trials[0].candidate.source), MAX_EXEMPLAR_CHARS)
    num_others = len(trials) - 1
    return [MAX_EXEMPLAR_CHARS] + [min(MAX_TRIAL_CHARS, left // num_others)] * num_others


def _tried(trial: Trial, most_chars: int) -> str:
    result = trial.results[-1]
    note = _untrusted(trial.candidate.note, MAX_NOTE_CHARS)
    feedback = _untrusted(result.feedback, MAX_TRIAL_CHARS // 4)
    parts = [f"### {describe(result)}"]
    if note:
        parts.append(f"Its author's note: {note}")
    parts.append(fenced(_bounded(trial.candidate.source, most_chars), "python"))
    if feedback:
        parts.append(fenced(feedback, "text"))
    return "\n\n".join(parts)


def _untrusted(text: str, limit: int) -> str:
    """`text` as a program printed it, without control characters and no longer than `limit`."""
    plain = "".join(char for char in text if char.isprintable() or char in "\n\t")
    return _bounded(plain.strip(), limit)


def _data(text: str, limit: int) -> str:
    """What a program printed, in a fence; nothing where it printed nothing."""
    plain = _untrusted(text, limit)
    return fenced(plain, "text") if plain else ""


def _bounded(text: str, limit: int) -> str:
    """Beginning and end of `text`, at most `limit` characters besides the mark between them."""
    if len(text) <= limit:
        return text
    head, tail = text[: limit * 2 // 3], text[-(limit // 3) :]
    return f"{head}\n[... {len(text) - len(head) - len(tail)} characters left out ...]\n{tail}"


def _paths(folder: Path | None) -> dict[str, Path]:
    paths = {name: SHIPPED / name for name in PLACEHOLDERS}
    if folder is None:
        return paths
    if not folder.is_dir():
        raise UserError(f"--prompts {folder} is not a folder. Copy {SHIPPED} there and change what you like.")
    for path in sorted(folder.glob("*.md")):
        if path.name not in PLACEHOLDERS:
            raise unknown_name("prompt file", path.name, PLACEHOLDERS)
        paths[path.name] = path
    return paths


def _template(path: Path, name: str) -> string.Template:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}") from None
    allowed = PLACEHOLDERS[name]
    for match in string.Template.pattern.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        known = f"Allowed: {', '.join(f'${word}' for word in sorted(allowed))}."
        if match["invalid"] is not None:
            raise UserError(f"{path}:{line}: a lone $. Write $$ for a dollar sign. {known}")
        placeholder = match["named"] or match["braced"]
        if placeholder and placeholder not in allowed:
            raise UserError(f"{path}:{line}: unknown placeholder ${placeholder}. {known}")
    return string.Template(text)
