"""Every question to a model and every answer, kept on disk before anyone acts on the answer.

A search that was killed hands out the same brief again; what a model already answered to it is read from
here and not paid for twice. The answer's cost is then told with the candidate, as it was not before: the
journal either has the candidate, and the brief is not handed out again, or it has neither.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from kbopt.core import codec
from kbopt.core.costs import Usage, per_model
from kbopt.core.proposals import Brief


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One question and its answer. `question` is the new message; those before it precede it.

    `at` is when the answer came, in Unix seconds.
    """

    model: str
    question: str
    answer: str
    finish: str
    refusal: str
    usage: Usage
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRequest:
    """A request without an answer, and why. `at` in Unix seconds; `usage` where it may have to be paid."""

    model: str
    reason: str
    at: float
    usage: Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """All that was said for one brief, or on one topic.

    The first question is `prompt`, after the message `system`, which may be empty. `submitted` is the
    candidate that an agent handed in, empty for none. `strategy` names the one that the question asks for.
    """

    brief: str
    key: str
    system: str
    prompt: str
    exchanges: tuple[Exchange, ...] = ()
    failures: tuple[FailedRequest, ...] = ()
    submitted: str = ""
    strategy: str = ""

    @property
    def usage(self) -> tuple[Usage, ...]:
        """What the answers cost, by model, and the requests that came to nothing but are paid for."""
        late = (failure.usage for failure in self.failures if failure.usage is not None)
        return per_model([*(exchange.usage for exchange in self.exchanges), *late])

    @property
    def text(self) -> str:
        """The conversation in its order for a reader, each message under a line that says whose it is."""
        parts = [f"## System\n\n{self.system}"] if self.system else []
        parts += [f"## Strategy\n\n{self.strategy}"] if self.strategy else []
        for exchange in self.exchanges:
            usage = exchange.usage
            tokens = f"{usage.prompt_tokens:,} tokens in, {usage.completion_tokens:,} out"
            facts = f"{exchange.model}, {tokens}, {usage.seconds:.1f} s, finish: {exchange.finish}"
            facts += f", submitted: {self.submitted}" if self.submitted else ""
            refusal = f"\n\n[refusal] {exchange.refusal}" if exchange.refusal else ""
            parts.append(f"## Prompt\n\n{exchange.question}")
            parts.append(f"## Answer ({facts})\n\n{exchange.answer or '(empty)'}{refusal}")
        if not self.exchanges:
            parts.append(f"## Prompt\n\n{self.prompt}")
        parts += [f"## Failed request to {failure.model}\n\n{failure.reason}" for failure in self.failures]
        return "\n\n".join(parts)

    def messages(self, question: str) -> list[dict[str, str]]:
        """The conversation so far with `question` as its next message."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for exchange in self.exchanges:
            messages.append({"role": "user", "content": exchange.question})
            # Some services refuse an empty message.
            messages.append({"role": "assistant", "content": exchange.answer or "(no answer)"})
        return [*messages, {"role": "user", "content": question}]


def brief_key(brief: Brief) -> str:
    """A hash of what the brief asks: task, parent, exemplars, summary, random seed, action, strategy.

    Not of the prompt's text, which also shows measurements: a repeated measurement of the parent between
    the answer and a crash would make the model answer the same brief again.
    """
    question: dict[str, object] = {
        "brief": brief.id,
        "task": brief.task.key,
        "parent": brief.parent and brief.parent.candidate.source,
        "exemplars": [trial.candidate.source for trial in brief.exemplars],
        "summary": brief.summary,
        "seed": brief.seed,
        "action": brief.action,
    }
    if brief.strategy is not None:
        question["strategy"] = brief.strategy.name
    return hashlib.sha256(codec.dumps(question).encode()).hexdigest()


class Transcripts:
    """One JSON file for each brief in `folder`, which belongs to one search.

    A brief that was handed out again with another question, such as other exemplars after a crash, has a
    file for each; the file's name holds the brief's and the start of the question's hash.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, brief: str, key: str) -> Transcript | None:
        """What was said for the brief before; None for a brief that is new."""
        path = self._path(brief, key)
        if not path.exists():
            return None
        transcript = codec.loads(Transcript, path.read_bytes())
        return transcript if transcript.key == key else None

    def latest(self, brief: str) -> Transcript | None:
        """What was said last for the brief, whatever the question was; None where nothing was."""
        found = (
            codec.loads(Transcript, path.read_bytes())
            for path in self._folder.glob(f"{_file_name(brief)}-{'?' * _KEY_CHARS}.json")
        )
        of_brief = [transcript for transcript in found if transcript.brief == brief]
        return max(of_brief, key=_last_word, default=None)

    def save(self, transcript: Transcript) -> None:
        """Writes durably and in one step: a reader or a crash sees the old file or the new one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(transcript.brief, transcript.key)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        with partial.open("w", encoding="utf-8") as file:
            file.write(codec.dumps(transcript))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    def _path(self, brief: str, key: str) -> Path:
        return self._folder / f"{_file_name(brief)}-{key[:_KEY_CHARS]}.json"


_KEY_CHARS = 12


def _file_name(brief: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", brief)[:80]


def _last_word(transcript: Transcript) -> float:
    """When the newest answer or failure came, in Unix seconds; 0.0 where there is neither."""
    answers = [exchange.at for exchange in transcript.exchanges]
    return max([*answers, *(failure.at for failure in transcript.failures)], default=0.0)
