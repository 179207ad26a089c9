"""The set-up check: five steps through a backend, and what else this machine offers.

Each step says what was found, or what failed and what to do about it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import traceback
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from kbopt.backends.local import SANDBOX_REMEDY, LocalBackend
from kbopt.backends.opening import Say, open_aloud
from kbopt.compose.backends import open_backend
from kbopt.config import BackendConfig, device_kind
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest, Result
from kbopt.core.languages import PACKAGES, Language, has_module
from kbopt.core.outcomes import Measured, outcome_name
from kbopt.core.ports import Backend
from kbopt.core.proposals import Brief, Candidate
from kbopt.core.protocol import EvalProtocol
from kbopt.core.text import plural
from kbopt.proposers.tunables import TunablesProposer
from kbopt.reporting.text import speedup_text
from kbopt.tasks import load_task

NUM_EVALUATIONS = 3
_LOG_LINES = 20
MODEL_KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One check. `remedy` is empty where `ok`; an `optional` step that fails is no fault.

    `log` is what `--verbose` shows: a compiler's words, where the time went, a traceback.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    optional: bool = False
    log: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """The end of the backend's examination: how often it was started for it."""

    cold_starts: int


async def examine_backend(config: BackendConfig, task_name: str, say: Say) -> AsyncIterator[Step | Examined]:
    """The five steps, in order; the first that fails is the last. Ends with `Examined`.

    `say` hears what a device that is being started waits for.
    """
    cold_starts = 0
    backend: Backend | None = None
    try:
        task = load_task(task_name)
        yield Step(name="load a task", ok=True, detail=f"{task.name}, family {task.family}")
        proposer = TunablesProposer(device_kind=device_kind(config))
        brief = Brief(id="doctor", task=task, parent=None, exemplars=(), summary="", seed=0, memory_version=0)
        kernel = await proposer.propose(brief)
        if not isinstance(kernel, Candidate):
            raise UserError(f"no seed kernel for {task_name}: {kernel.reason}")
        yield Step(name="load a kernel", ok=True, detail=kernel.note or f"{len(kernel.source)} characters")
        backend = open_backend(config)
        status = await open_aloud(backend, backend.open(), say)
        cold_starts = status.cold_starts
        facts = (status.device, f"boot {status.boot}", f"age {status.age_s:.0f} s", status.detail)
        detail = f"{config.name}: {', '.join(filter(None, facts))}"
        yield Step(name="open the backend", ok=True, detail=detail)
        if status.warning:
            yield Step(name="isolate candidates", ok=False, detail=status.warning, remedy=SANDBOX_REMEDY)
        results = []
        for repeat in range(NUM_EVALUATIONS):
            request = EvalRequest(
                task=task, source=kernel.source, protocol=EvalProtocol(timed=30), repeat=repeat
            )
            results += await backend.evaluate([request])
        cold_starts = (await backend.status()).cold_starts
        place = "container" if config.name == "modal" else "process"
        step = evaluations_step(results, place)
        yield step if step.ok else replace(step, detail=f"{step.detail}{_end_of_log(backend)}")
        request = EvalRequest(task=task, source=task.equal_code, protocol=EvalProtocol())
        yield equal_code_step((await backend.evaluate([request]))[0])
    except (UserError, InfraError) as error:
        log = traceback.format_exc()
        said = _end_of_log(backend) if isinstance(error, InfraError) else ""
        detail = f"{error}{said}"
        yield Step(name="stopped", ok=False, detail=detail, remedy=_remedy(config, error), log=log)
    finally:
        if backend is not None:
            await backend.close()
    yield Examined(cold_starts=cold_starts)


def examine_machine() -> Iterator[Step]:
    """What else this machine offers: compilers, torch, Ray, W&B, model keys."""
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Step(
        name="Python",
        ok=supported,
        detail=platform.python_version(),
        remedy="" if supported else "use Python 3.11 to 3.13",
    )
    yield _program("cc", "install a C compiler (Debian: build-essential)", optional=False)
    yield _extensions()
    yield _program("nvcc", "needed only for CUDA kernels on this machine: install the CUDA toolkit")
    for package, remedy in (("torch", "pip install torch"), ("ray", "pip install 'ray[default]'")):
        found = importlib.util.find_spec(package) is not None
        detail = _version(package) if found else "not installed"
        yield Step(name=package, ok=found, detail=detail, remedy="" if found else remedy)
    for language in PACKAGES:
        yield _package_step(language)
    wandb_key = bool(os.environ.get("WANDB_API_KEY"))
    yield Step(
        name="Weights & Biases",
        ok=wandb_key,
        detail="WANDB_API_KEY is set" if wandb_key else "no key in the environment; offline mode works",
        remedy="" if wandb_key else "for --use-wandb online: wandb login, or set WANDB_API_KEY",
        optional=True,
    )
    keys = [key for key in MODEL_KEYS if os.environ.get(key)]
    yield Step(
        name="model keys",
        ok=bool(keys),
        detail=", ".join(keys) if keys else "none of " + ", ".join(MODEL_KEYS),
        remedy="" if keys else "needed only for --proposer llm: export one of them",
        optional=True,
    )


def _package_step(language: Language) -> Step:
    """Whether kernels of a language that needs a package can be judged on this machine."""
    package = PACKAGES[language]
    absent = [name for name in package.modules if not has_module(name)]
    return Step(
        name=package.name,
        ok=not absent,
        detail=f"no module {' and no '.join(absent)}"
        if absent
        else ", ".join(map(_told, package.requirements)),
        remedy=f"needed only for --language {language}: {package.remedy}" if absent else "",
        optional=True,
    )


def _told(requirement: str) -> str:
    name = requirement.partition("==")[0]
    return f"{name} {_version(name)}"


def evaluations_step(results: list[Result], place: str) -> Step:
    """The last step: every evaluation measured, all by the same boot of a `place`, a container or process."""
    boots = {result.boot for result in results}
    lines = []
    for result in results:
        outcome = result.outcome
        found = f"{min(outcome.kernel_ms):.3g} ms" if isinstance(outcome, Measured) else outcome.reason
        lines.append(f"{outcome_name(outcome)}, {found}")
    many = "processes" if place == "process" else f"{place}s"
    same = f"all in the same {place}" if len(boots) == 1 else f"in {len(boots)} {many}"
    bad = [outcome_name(result.outcome) for result in results if not isinstance(result.outcome, Measured)]
    remedy = ""
    if bad:
        remedy = "the shipped kernel should be measured: report this with the line above"
    elif len(boots) > 1:
        remedy = (
            "the container was lost in between, perhaps preempted: run the doctor again, see `modal app logs`"
            if place == "container"
            else "the evaluation service ended in between: run the doctor again"
        )
    return Step(
        name=plural(len(results), "evaluation"),
        ok=not bad and len(boots) == 1,
        detail="; ".join([*lines, f"{same} ({', '.join(sorted(boots))})"]),
        remedy=remedy,
        log="\n".join(f"{result.seconds}\n{result.log}{result.feedback}" for result in results),
    )


def equal_code_step(result: Result) -> Step:
    """Whether the judge calls equal code equal: the task's own model, judged as a candidate."""
    name, outcome = "equal code", result.outcome
    if not isinstance(outcome, Measured):
        detail = f"{outcome_name(outcome)}, {outcome.reason}"
        return Step(name=name, ok=False, detail=detail, remedy="report this", log=result.log)
    low, high = outcome.speedup_ci
    steady = low <= 1 <= high
    return Step(
        name=name,
        ok=steady,
        detail=f"the task's own model as a candidate: {speedup_text(outcome.speedup, outcome.speedup_ci)}",
        remedy=""
        if steady
        else "1 should lie between: end other work on this machine, and run the doctor again",
        optional=True,  # A 95 % interval leaves it out now and then.
    )


def _remedy(config: BackendConfig, error: UserError | InfraError) -> str:
    if isinstance(error, UserError):
        return "do as the message says"
    if config.name == "modal":
        return "see https://status.modal.com and docs/modal.md, or use --backend local"
    return "the message and the end of the service's log say why; then run again"


def _end_of_log(backend: Backend | None) -> str:
    """The last lines that the service of this machine printed, where it printed any."""
    if not isinstance(backend, LocalBackend) or not backend.log.exists():
        return ""
    lines = backend.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    return "\n".join(["", f"The end of {backend.log}:", *(f"  {line}" for line in lines)])


def _program(name: str, remedy: str, *, optional: bool = True) -> Step:
    path = shutil.which(name)
    if path is None:
        return Step(name=name, ok=False, detail="not found", remedy=remedy, optional=optional)
    lines = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    versions = [line for line in lines.splitlines() if any(digit in line for digit in "0123456789")]
    return Step(name=name, ok=True, detail=versions[-1 if name == "nvcc" else 0], optional=optional)


def _extensions() -> Step:
    """Whether kernels that call `load_inline` can be compiled here."""
    has_headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    lacks = [] if shutil.which("g++") else ["g++ (Debian: g++)"]
    lacks += [] if has_headers else ["Python's headers (Debian: python3-dev)"]
    return Step(
        name="load_inline",
        ok=not lacks,
        detail="g++ and Python's headers are here" if not lacks else "kernels that call it do not compile",
        remedy=f"install {' and '.join(lacks)}" if lacks else "",
        optional=True,
    )


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def run(config: BackendConfig, task_name: str, say: Say) -> Iterator[Step | Examined]:
    """`examine_backend` for callers without an event loop, one step at a time."""
    with asyncio.Runner() as runner:
        steps = examine_backend(config, task_name, say)
        while True:
            try:
                yield runner.run(_next(steps))
            except StopAsyncIteration:
                return


async def _next(steps: AsyncIterator[Step | Examined]) -> Step | Examined:
    # a runner takes a coroutine, which anext's awaitable is not
    return await anext(steps)
