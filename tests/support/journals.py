"""Journals of searches that never ran: real events, the same ones for the same seed, without waiting.

The landscape is known: `BLOCK = 128`, `VECTOR = 4` and `NUM_WARPS = 4` are best, so a test can tell what a
report must find. Times follow a queue of three explorers, two compilers and one GPU lease.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from kbopt.core.costs import Rent, Usage
from kbopt.core.evaluations import KernelBenchVerdict, Result, Seconds, Span
from kbopt.core.events import (
    Asked,
    BackendStarted,
    Dropped,
    Ended,
    Entry,
    Evaluated,
    Event,
    InfraFailed,
    Opened,
    ProposalFailed,
    Proposed,
    RemeasureAsked,
    Rented,
    Summarized,
)
from kbopt.core.outcomes import (
    Audit,
    CompileFailed,
    Crashed,
    Measured,
    Outcome,
    Rejected,
    Roofline,
    Speedup,
    TimedOut,
    WrongAnswer,
)
from kbopt.core.proposals import Candidate
from kbopt.core.settings import Budget, SearchSettings
from kbopt.core.task import Task

START = 1_790_000_000.0
DEVICE = "NVIDIA L40S"
PROTOCOL = "strict-1/fp32/5x100/torch-warn"
REFERENCE_MS = 0.412

REFERENCE = '''\
import torch
import torch.nn as nn


class Model(nn.Module):
    """GELU with the tanh approximation, as transformers use it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x * (1.0 + torch.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))


def get_inputs():
    return [torch.randn(4096, 8192)]


def get_init_inputs():
    return []
'''

_KERNEL = '''\
import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK = {block}  # tune: 32, 64, 128, 256, 512
VECTOR = {vector}  # tune: 1, 2, 4, 8
NUM_WARPS = {warps}  # tune: 1, 2, 4, 8
FAST_TANH = {fast}  # tune: True, False


@triton.jit
def gelu_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr, VECTOR: tl.constexpr, FAST: tl.constexpr):
    """One program per BLOCK * VECTOR elements; the tail is masked."""
    start = tl.program_id(0) * BLOCK * VECTOR
    offsets = start + tl.arange(0, BLOCK * VECTOR)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask, eviction_policy="evict_first")
    inner = 0.7978845608028654 * (x + 0.044715 * x * x * x)
    if FAST:
        # tanh(z) = 1 - 2 / (exp(2 z) + 1): one exponential and one division
        gate = 1.0 - 2.0 / (tl.exp(2.0 * inner) + 1.0)
    else:
        gate = tl.extra.cuda.libdevice.tanh(inner)
    tl.store(out_ptr + offsets, 0.5 * x * (1.0 + gate), mask=mask)


class ModelNew(nn.Module):
    """{note}"""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        n = x.numel()
        grid = (triton.cdiv(n, BLOCK * VECTOR),)
        gelu_kernel[grid](x, out, n, BLOCK, VECTOR, FAST_TANH, num_warps=NUM_WARPS)
        return out
'''

GELU = Task(name="quick/gelu", source=REFERENCE, family="elementwise")

HOSTILE = (
    "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned=1'> 🚀 \u202eevil\u202c שלום"
)
"""Shown as text or not at all; never run, and never able to reorder what stands around it."""

CONFIG = {
    "backend": "modal",
    "gpu": "L40S",
    "proposer": "llm+tunables",
    "models": ["anthropic/claude-sonnet", "openai/gpt-mini"],
    "explorers": 3,
}


@dataclass(slots=True)
class _Clock:
    """When each explorer, compiler and the lease is free next, in Unix seconds."""

    explorers: list[float] = field(default_factory=lambda: [START + 4.0] * 3)
    compilers: list[float] = field(default_factory=lambda: [START + 4.0] * 2)
    lease: float = START + 4.0


def settings(algorithm: str = "PS_epsNet_Summarizer", seed: int = 0, evaluations: int = 50) -> SearchSettings:
    return SearchSettings(algorithm=algorithm, seed=seed, budget=Budget(evaluations=evaluations))  # type: ignore[arg-type]


def entries(
    num_candidates: int, *, seed: int = 0, correct: bool = True, hostile: str = ""
) -> Iterator[Entry]:
    """The journal of a search with `num_candidates` proposals that ran to its end.

    Without `correct` no kernel works. `hostile` is put into every text that a kernel, a model or a
    machine can write.
    """
    timed = sorted(_timed_events(num_candidates, random.Random(seed), correct, hostile), key=lambda e: e[0])
    last = timed[-1][0] if timed else START
    numbers = itertools.count(1)
    yield Entry(number=next(numbers), time=START, event=Opened(session=1))
    yield Entry(
        number=next(numbers), time=START + 4.0, event=BackendStarted(boot="boot-1", device=DEVICE, cold=True)
    )
    rent = Rent(gpu="H100", seconds=2400.0, usd=3.25)
    yield Entry(number=next(numbers), time=START + 4.0, event=Rented(rent=rent))
    for when, _, event in timed:
        yield Entry(number=next(numbers), time=when, event=event)
    yield Entry(
        number=next(numbers), time=last + 0.5, event=Ended(reason="the budget of evaluations is spent")
    )


def _timed_events(
    num_candidates: int, rng: random.Random, correct: bool, hostile: str
) -> Iterator[tuple[float, int, Event]]:
    """The events with their times, and a rank that orders events of the same instant."""
    clock = _Clock()
    told: list[tuple[float, str, dict[str, object], float]] = []  # when, id, genome, speedup
    best = 0.0
    for i in range(num_candidates):
        explorer = min(range(len(clock.explorers)), key=lambda lane: clock.explorers[lane])
        asked_at = clock.explorers[explorer]
        answered_at = asked_at + rng.uniform(0.6, 3.0)
        clock.explorers[explorer] = answered_at
        seen = [one for one in told[-400:] if one[0] <= asked_at]
        memory_version = max(0, len(told) - (len(told[-400:]) - len(seen)))
        parent = max(rng.sample(seen, min(4, len(seen))), key=lambda one: one[3]) if seen else None
        genome = _mutated(parent[2] if parent else None, rng)
        identity = f"c{i + 1:04d}"
        asked = Asked(
            brief=identity,
            parent=parent[1] if parent else None,
            exemplars=tuple(one[1] for one in seen[-2:]),
            summary_version=i // 20,
            seed=i,
            memory_version=memory_version,
            action="refine" if i % 3 == 0 else "propose",
        )
        yield asked_at, i * 10, asked
        usage = (
            Usage(
                model=str(CONFIG["models"][i % 2]),  # type: ignore[index]
                prompt_tokens=2200 + i % 300,
                completion_tokens=900 + i % 200,
                usd=None if i % 50 == 49 else 0.011 + 0.001 * (i % 3),
                seconds=answered_at - asked_at,
            ),
        )
        paid = usage if asked.action == "propose" else ()
        if i % 29 == 28:
            reason = f"the answer held no code block {hostile}"
            yield answered_at, i * 10 + 1, ProposalFailed(brief=identity, reason=reason, usage=paid)
            continue
        note = f"BLOCK {genome['block']}, VECTOR {genome['vector']} {hostile}".strip()
        candidate = Candidate(
            id=identity,
            source=_KERNEL.format(note=note.replace('"', "'"), **genome),
            parent=asked.parent,
            proposer="tunables" if asked.action == "refine" else f"llm:{usage[0].model}",
            memory_version=memory_version,
            note=note,
            usage=paid,
        )
        yield answered_at, i * 10 + 1, Proposed(candidate=candidate)
        if seen and rng.random() < 0.06:
            distance = rng.uniform(0.0, 0.1)
            yield (
                answered_at,
                i * 10 + 2,
                Dropped(candidate=identity, neighbour=seen[-1][1], distance=distance),
            )
            continue
        outcome = _outcome(genome, rng, correct, hostile)
        result, done_at = _timed_result(outcome, answered_at, clock, rng, hostile)
        yield done_at, i * 10 + 3, Evaluated(candidate=identity, result=result, cached=i % 23 == 22)
        speedup = outcome.speedup if isinstance(outcome, Measured) else 0.0
        told.append((done_at, identity, genome, speedup))
        if speedup > best and isinstance(outcome, Measured):
            best = speedup
            yield done_at, i * 10 + 4, RemeasureAsked(candidate=identity, repeat=1)
            again = replace(outcome, speedup=speedup * 0.995, speedup_ci=(speedup * 0.97, speedup * 1.01))
            repeated, repeated_at = _timed_result(again, done_at, clock, rng, hostile)
            yield repeated_at, i * 10 + 5, Evaluated(candidate=identity, result=repeated, repeat=1)
        if i % 20 == 19:
            text = f"- Keep BLOCK between 64 and 256.\n- VECTOR = 4 won {i // 4} times.\n{hostile}"
            yield done_at + 0.1, i * 10 + 6, Summarized(text=text, memory_version=len(told), usage=usage)
        if i % 97 == 96:
            reason = f"the container was preempted {hostile}"
            yield done_at + 0.2, i * 10 + 7, InfraFailed(what="modal container", reason=reason, attempt=1)


def _mutated(parent: dict[str, object] | None, rng: random.Random) -> dict[str, object]:
    choices: dict[str, list[object]] = {
        "block": [32, 64, 128, 256, 512],
        "vector": [1, 2, 4, 8],
        "warps": [1, 2, 4, 8],
        "fast": [True, False],
    }
    genome = dict(parent) if parent else {name: values[0] for name, values in choices.items()}
    for name in rng.sample(sorted(choices), 1 + (rng.random() < 0.3)):
        genome[name] = rng.choice(choices[name])
    return genome


def _outcome(genome: dict[str, object], rng: random.Random, correct: bool, hostile: str) -> Outcome:
    draw = rng.random() if correct else rng.uniform(0.0, 0.3)
    if draw < 0.07:
        worst = rng.uniform(0.01, 3)
        return WrongAnswer(
            reason=f"output differs: max |error| {worst:.3f} at [12, 7], allowed 0.0001 {hostile}"
        )
    if draw < 0.15:
        line = rng.randrange(20, 40)
        return CompileFailed(reason=f"CompilationError: at {line}:17: cannot find 'tl.extra.cuda' {hostile}")
    if draw < 0.20:
        return Crashed(reason=f"an illegal memory access was encountered {hostile}", how="AcceleratorError")
    if draw < 0.23:
        return TimedOut(reason="the check did not finish within 60 s", stage="check", limit_s=60.0)
    if not correct or draw < 0.26:
        return Rejected(reason=f"fp32 inputs were multiplied as TF32 {hostile}", family="precision_downgrade")
    return _measured(genome, rng)


def _measured(genome: dict[str, object], rng: random.Random) -> Measured:
    speedup = 2.4
    for name, optimum in (("block", 128), ("vector", 4), ("warps", 4)):
        speedup *= math.exp(-0.16 * abs(math.log2(int(str(genome[name])) / optimum)))
    speedup *= (1.0 if genome["fast"] else 0.82) * math.exp(rng.gauss(0.0, 0.01))
    kernel = REFERENCE_MS / speedup
    return Measured(
        kernel_ms=tuple(kernel * math.exp(rng.gauss(0.0, 0.02)) for _ in range(100)),
        reference_ms=tuple(REFERENCE_MS * math.exp(rng.gauss(0.0, 0.015)) for _ in range(100)),
        speedup=speedup,
        speedup_ci=(speedup * 0.985, speedup * 1.016),
        native_ms=kernel,
        wall_ms=kernel * 1.013,
        audit=Audit(custom_kernel=True, torch_ops=("aten::empty_like",), notes=("1 Triton kernel launched",)),
        roofline=Roofline(
            size_bytes=268_435_456,
            operations=402_653_184,
            floor_ms=0.137,
            share=min(0.97, 0.137 / kernel),
            reference_ops_ms=0.006,
        ),
        speedups=(
            _over("eager", REFERENCE_MS, kernel),
            _over("compile", 0.201, kernel),
        ),
    )


def _over(baseline: str, baseline_ms: float, kernel_ms: float) -> Speedup:
    ratio = baseline_ms / kernel_ms
    return Speedup(
        baseline=baseline,
        clock="device",
        baseline_ms=baseline_ms,
        kernel_ms=kernel_ms,
        speedup=ratio,
        interval=(ratio * 0.98, ratio * 1.02),
    )


def _timed_result(
    outcome: Outcome, ready_at: float, clock: _Clock, rng: random.Random, hostile: str
) -> tuple[Result, float]:
    compiler = min(range(len(clock.compilers)), key=lambda lane: clock.compilers[lane])
    build_at = max(ready_at, clock.compilers[compiler])
    build_s = rng.uniform(0.4, 1.6)
    clock.compilers[compiler] = build_at + build_s
    built = not isinstance(outcome, CompileFailed)
    lease_at = max(build_at + build_s, clock.lease)
    check_s, time_s = (rng.uniform(0.1, 0.3), rng.uniform(0.2, 0.5)) if built else (0.0, 0.0)
    done_at = (lease_at + check_s + time_s) if built else build_at + build_s
    spans = [Span(stage="compile", start=build_at, seconds=build_s)]
    if built:
        clock.lease = done_at
        spans.append(Span(stage="check", start=lease_at, seconds=check_s))
        spans.append(Span(stage="time", start=lease_at + check_s, seconds=time_s))
    text = outcome.reason if not isinstance(outcome, Measured) else f"correct, {outcome.speedup:.2f}x"
    result = Result(
        outcome=outcome,
        feedback=f"{text}\n{hostile}",
        device=DEVICE,
        protocol=PROTOCOL,
        boot="boot-1",
        seconds=Seconds(queue=max(0.0, build_at - ready_at), compile=build_s, check=check_s, time=time_s),
        device_s=0.8 * (check_s + time_s),
        spans=tuple(spans),
        kernelbench=KernelBenchVerdict(
            compiled=built,
            correctness=isinstance(outcome, Measured),
            metadata={"hardware": DEVICE},
            runtime=round(REFERENCE_MS / outcome.speedup, 3) if isinstance(outcome, Measured) else -1.0,
            runtime_stats={},
            ref_runtime=REFERENCE_MS,
            ref_runtime_stats={},
        ),
        log="" if built else f"ptxas info: 0 bytes gmem\nerror: expected ';' {hostile}\n" * 6,
    )
    return result, done_at
