"""The prompts: templates with named placeholders, filled from a brief.

Values are put in as they are and never expanded again, so a kernel full of dollar signs is safe.
"""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kbopt.core.languages import Language
from kbopt.core.proposals import Brief, Trial
from kbopt.core.protocol import Arithmetic
from kbopt.core.task import Task
from kbopt.core.workloads import shown_source
from kbopt.proposers.shown import (
    bounded,
    describe,
    exemplar,
    fenced,
    others,
    printed,
    source_limits,
    telling,
    tried,
)
from kbopt.proposers.templates import load_templates

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

MAX_FEEDBACK_CHARS = 6_000
MAX_EVIDENCE_CHARS = 4_000
MAX_SUMMARY_CHARS = 8_000
MAX_LESSONS_CHARS = 4_000


@dataclass(frozen=True, slots=True)
class Prompts:
    """A checked set of templates. Made by `load`."""

    templates: Mapping[str, string.Template]

    @staticmethod
    def load(folder: Path | None) -> Prompts:
        """The shipped templates, with those of `folder` in their places. Raises as `load_templates` does."""
        return Prompts(load_templates(folder))

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
            "evidence": printed(brief.evidence, MAX_EVIDENCE_CHARS),
            "exemplars": "\n\n".join(map(exemplar, itertools.count(1), brief.exemplars)),
            "summary": bounded(brief.summary.strip(), MAX_SUMMARY_CHARS),
            "lessons": printed(lessons, MAX_LESSONS_CHARS),
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
            parent_feedback=printed(result.feedback, MAX_FEEDBACK_CHARS) or "(none)",
            others=others(brief.others),
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
        shown = map(tried, best_first, source_limits(best_first))
        return self._fill(
            "summary.md",
            task_name=task.name,
            task_source=fenced(shown_source(task.source), "python"),
            device_facts=device_facts.strip() or "Not known.",
            language=language,
            passes=BOTH_PASSES if backward else _FORWARD,
            fp32_products=_fp32_products(language, arithmetic),
            trials="\n\n".join(shown) or "None yet.",
            previous=bounded(previous.strip(), MAX_SUMMARY_CHARS) or "None yet.",
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


def _strategy(brief: Brief) -> str:
    if brief.strategy is not None:
        return brief.strategy.text
    if brief.parent is None:
        return "Choose it yourself."
    return "\n\n".join(["Start from the kernel to improve.", *filter(None, [others(brief.others)])])
