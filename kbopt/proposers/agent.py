"""Coding agents as proposers: each brief gets a folder, a judge, and one run of a command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kbopt.core import codec
from kbopt.core.costs import Usage
from kbopt.core.errors import InfraError
from kbopt.core.languages import Language
from kbopt.core.ports import Attempts
from kbopt.core.proposals import Brief, Candidate, NoProposal, Trial
from kbopt.core.redaction import redact
from kbopt.core.text import encodable
from kbopt.core.workloads import shown_source
from kbopt.proposers.agent_desk import Desk, Place
from kbopt.proposers.agent_presets import MODULE, PLACE, PYTHON, TOOL_TIMEOUT_S, usage_of
from kbopt.proposers.prompt import Prompts
from kbopt.proposers.transcripts import Exchange, FailedRequest, Transcript, Transcripts, brief_key

MAX_OUTPUT = 2 * 2**20
"""Bytes of an agent's output that are kept, from its beginning and its end. An agent that prints each step
of an hour's work prints about as much; a page shows less."""

END_S = 20.0
"""Seconds in which the keeper ends all that an agent started; it is killed itself then."""

_NOT_FOR_AGENTS = ("RAY_", "KBOPT_", "MODAL_", "WANDB_", "CUDA_", "NVIDIA_")
"""Variables that begin so belong to kbopt, its cluster or the device; the keys of models go to the agent."""


class AbsentAgent:
    """Has no kernel for any brief: `kbopt resume` measures what the agent left, and asks for nothing new."""

    name = "agent"

    async def propose(self, brief: Brief) -> NoProposal:
        """Says so; `brief` was written for an agent that is not there any more."""
        return NoProposal(reason="the agent that asked for this is gone; `kbopt mcp` starts a new session")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCommand:
    """A program that answers briefs. `name` is for the report; `writable` are folders besides its workspace.

    In `words`, `{python}` and `{place}` stand for this Python and for the file with the desk's place.
    """

    name: str
    words: tuple[str, ...]
    writable: tuple[str, ...]
    max_evals: int
    limit_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """How a command ended: its exit code, None where its time was over, and what it printed."""

    code: int | None
    output: str

    @property
    def how(self) -> str:
        if self.code is None:
            return "timed out"
        if self.code < 0:
            return f"its keeper was killed by signal {-self.code}, and what it started may still run"
        return f"killed by signal {self.code - 128}" if self.code > 128 else f"exit {self.code}"


class AgentProposer:
    """Starts `command` for each brief, in a folder of its own under `folder`; what it submits is the answer.

    `transcripts` is a folder of this search alone. A brief that was handed out again after a crash is
    answered from there where its agent had ended or submitted, and given to the agent anew otherwise.
    """

    def __init__(
        self,
        command: AgentCommand,
        attempts: Attempts,
        *,
        folder: Path,
        transcripts: Path,
        prompts: Path | None,
        language: Language,
        device_facts: str,
        lessons: str = "",
        backward: bool = False,
    ) -> None:
        self.name = f"agent:{command.name}"
        self._command = command
        self._attempts = attempts
        self._folder = folder.resolve()
        self._transcripts = Transcripts(transcripts)
        self._prompts = Prompts.load(prompts)
        self._language = language
        self._device_facts = device_facts
        self._lessons = lessons
        self._backward = backward

    async def propose(self, brief: Brief) -> Candidate | NoProposal:
        key = brief_key(brief)
        transcript = self._transcripts.find(brief.id, key)
        workspace = self._folder / brief.id
        earlier = await self._attempts.earlier(brief.id)
        if transcript is not None and not transcript.exchanges:
            transcript = self._after_a_crash(transcript, workspace)
        if transcript is not None and transcript.exchanges:
            return self._answer(brief, transcript, earlier)
        if transcript is None:
            question = encodable(
                self._prompts.agent(
                    brief,
                    self._language,
                    self._device_facts,
                    evaluations=self._command.max_evals,
                    minutes=self._command.limit_s / 60,
                    has_lessons=bool(self._lessons),
                    backward=self._backward,
                )
            )
            strategy = brief.strategy.name if brief.strategy else ""
            transcript = Transcript(brief=brief.id, key=key, system="", prompt=question, strategy=strategy)
        self._transcripts.save(transcript)
        transcript, trials = await self._worked(brief, transcript, workspace, earlier)
        return self._answer(brief, transcript, trials)

    def _after_a_crash(self, transcript: Transcript, workspace: Path) -> Transcript:
        """What is known of an agent that ended with kbopt: its answer where it had submitted one."""
        output = _output(_log(workspace))
        usage = replace(usage_of(output, self.name, 0.0), usd=None)
        if transcript.submitted:
            return self._with_answer(transcript, output, "submitted, then ended with kbopt", usage)
        reason = "the agent was ended with kbopt before it submitted; what it spent is not known"
        said = encodable(redact(output, os.environ))
        lost = FailedRequest(model=self.name, reason=f"{reason}\n\n{said}", at=time.time(), usage=usage)
        return replace(transcript, failures=(*transcript.failures, lost))

    async def _worked(
        self, brief: Brief, transcript: Transcript, workspace: Path, earlier: tuple[Trial, ...]
    ) -> tuple[Transcript, tuple[Trial, ...]]:
        """The transcript with the agent's work, saved, and what was judged for it."""

        def note_submission(candidate: str) -> None:
            nonlocal transcript
            transcript = replace(transcript, submitted=candidate)
            self._transcripts.save(transcript)

        desk = Desk(
            brief,
            self._attempts,
            earlier=earlier,
            limit=self._command.max_evals,
            seconds=self._command.limit_s,
            on_submit=note_submission,
        )
        place = await desk.open()
        started = time.monotonic()
        try:
            write_workspace(workspace, brief, transcript.prompt, place, self._lessons)
            ended = await self._run(workspace)
        except OSError as error:  # the disk is full, or has no processes left
            raise InfraError(
                f"the agent of {brief.id} could not be started in {workspace}: {error}"
            ) from error
        finally:
            await desk.close()
        usage = usage_of(ended.output, self.name, time.monotonic() - started)
        strangers = f"; {desk.sent_away} callers without its token were sent away" if desk.sent_away else ""
        transcript = self._with_answer(transcript, ended.output, ended.how + strangers, usage)
        _place(workspace).unlink(missing_ok=True)
        _log(workspace).unlink()  # in the transcript, without the user's keys
        return transcript, desk.trials

    def _with_answer(self, transcript: Transcript, output: str, finish: str, usage: Usage) -> Transcript:
        exchange = Exchange(
            model=self.name,
            question=transcript.prompt,
            answer=encodable(redact(output, os.environ)),
            finish=finish,
            refusal="",
            usage=usage,
            at=time.time(),
        )
        transcript = replace(transcript, exchanges=(exchange,))
        self._transcripts.save(transcript)
        return transcript

    def _answer(
        self, brief: Brief, transcript: Transcript, trials: Sequence[Trial]
    ) -> Candidate | NoProposal:
        finish = transcript.exchanges[0].finish
        chosen = next((t.candidate for t in trials if t.candidate.id == transcript.submitted), None)
        if chosen is None:
            kept = f"; its {len(trials)} judged kernels are in the journal" if trials else ""
            said = transcript.exchanges[0].answer.strip().splitlines()
            last = f". It last printed: {said[-1][:200]}" if said else ""
            reason = f"the agent submitted no kernel ({finish}){kept}{last}"
            return NoProposal(reason=reason, usage=transcript.usage, blame="answer")
        return Candidate(
            id=brief.id,
            source=chosen.source,
            parent=chosen.parent,
            proposer=self.name,
            memory_version=brief.memory_version,
            note=f"submitted {chosen.id}" + (f": {chosen.note}" if chosen.note else ""),
            usage=transcript.usage,
        )

    async def _run(self, workspace: Path) -> _Ended:
        """Run the command to its end or its time's, and end all that it started."""
        values = {PYTHON: sys.executable, PLACE: str(_place(workspace))}
        words = [_filled(word, values) for word in self._command.words]
        writable = [path for name in self._command.writable if (path := Path(name).expanduser()).exists()]
        keeper = [
            *(sys.executable, "-P", "-m", "kbopt.agents.keeper", str(workspace)),
            *map(str, writable),
            *("--", *words),
        ]
        with _log(workspace).open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *keeper,
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                cwd=workspace,
                env=environment(os.environ, workspace),
            )
        code: int | None = None
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._command.limit_s):
                    code = await process.wait()
        finally:
            # The keeper ends the agent and all that it started when this end of its pipe is closed.
            if process.stdin is not None:
                process.stdin.close()
            try:
                async with asyncio.timeout(END_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
        return _Ended(code=code, output=_output(_log(workspace)))


def environment(environ: Mapping[str, str], workspace: Path) -> dict[str, str]:
    """What an agent finds in its environment: the user's, without kbopt's own and without a device."""
    kept = {name: value for name, value in environ.items() if not name.startswith(_NOT_FOR_AGENTS)}
    return {
        **kept,
        "CUDA_VISIBLE_DEVICES": "",
        "TMPDIR": str(workspace / "tmp"),
        "MCP_TOOL_TIMEOUT": str(1000 * TOOL_TIMEOUT_S),  # of Claude Code, in milliseconds
    }


def write_workspace(workspace: Path, brief: Brief, prompt: str, place: Place, lessons: str = "") -> None:
    """Everything that the agent is given: no seeds, no inputs, no device. What it left there itself stays."""
    (workspace / "tmp").mkdir(parents=True, exist_ok=True)
    files = {"TASK.md": prompt, "task.py": shown_source(brief.task.source)}
    if brief.parent is not None:
        files["parent.py"] = brief.parent.candidate.source
        files["feedback.txt"] = brief.parent.results[-1].feedback
    for number, trial in enumerate(brief.exemplars, 1):
        files[f"other_{number}.py"] = trial.candidate.source
    if brief.evidence:
        files["profile.txt"] = brief.evidence
    if brief.summary:
        files["learned.md"] = brief.summary
    if lessons:
        files["lessons.txt"] = lessons
    server = [sys.executable, "-P", "-m", MODULE, str(_place(workspace))]
    claude = {"mcpServers": {"kbopt": {"command": server[0], "args": server[1:]}}}
    local = {"type": "local", "command": server, "enabled": True, "timeout": 1000 * TOOL_TIMEOUT_S}
    allowed = {"edit": "allow", "bash": "allow", "webfetch": "deny", "external_directory": "deny"}
    files[".mcp.json"] = json.dumps(claude, indent=2)
    files["opencode.json"] = json.dumps({"mcp": {"kbopt": local}, "permission": allowed}, indent=2)
    for name, text in files.items():
        _write(workspace / name, encodable(text))
    path = _place(workspace)
    _write(path, codec.dumps(place), mode=0o600)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    """A new file, whatever an agent before may have put in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)


def _place(workspace: Path) -> Path:
    return workspace / ".kbopt.json"


def _log(workspace: Path) -> Path:
    """Beside the workspace: the agent's output is kbopt's."""
    return workspace.with_name(f"{workspace.name}.log")


def _output(log: Path) -> str:
    """What the agent printed, without its middle where it is long."""
    if not log.exists():
        return ""
    size = log.stat().st_size
    with log.open("rb") as file:
        if size <= MAX_OUTPUT:
            return file.read().decode(errors="replace")
        head = file.read(MAX_OUTPUT // 2).decode(errors="replace")
        file.seek(-MAX_OUTPUT // 2, os.SEEK_END)
        tail = file.read().decode(errors="replace")
    return f"{head}\n[... {size - MAX_OUTPUT:,} bytes left out ...]\n{tail}"


def _filled(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word
