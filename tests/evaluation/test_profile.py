"""Profiles through the service's client, in real processes on the CPU; and what their processes may say."""

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from kbopt.core import codec
from kbopt.core.errors import UserError
from kbopt.core.profile import (
    Code,
    Counters,
    KernelCode,
    Missing,
    NotProfiled,
    Part,
    Profile,
    ProfileRequest,
    Share,
    Trace,
)
from kbopt.core.task import Task
from kbopt.evaluation.messages import CallBoth, Go, NeedsDevice
from kbopt.evaluation.profile.trace_events import OWN_CODE
from kbopt.evaluation.server.profiling import told
from kbopt.evaluation.server.quiet import Quiet
from kbopt.evaluation.transport.channel import Channel
from kbopt.evaluation.transport.untrusted import CandidateForged
from kbopt.evaluation.worker import profile_process
from tests.evaluation.conftest import ELEMENTWISE, QUICK, Bench

PLAIN = """
import torch

class ModelNew(torch.nn.Module):
    def forward(self, x):
        {body}
"""
RIGHT = PLAIN.format(body="return torch.tanh(x).mul_(2).add_(x)")
SEED = resources.files("kbopt.proposers") / "kernels" / "softmax" / "cpu_rows.py"
SOFTMAX = resources.files("kbopt.tasks") / "sources" / "quick" / "softmax.py"


WORKLOADS = (
    ELEMENTWISE.replace("get_inputs():", "get_inputs(rows):").replace("(256, 512)", "(rows, 512)")
    + """
def get_workloads():
    return [{"name": "one", "args": {"rows": 64}}, {"name": "two", "args": {"rows": 77}, "role": "hidden"}]
"""
)


def profiled(bench: Bench, source: str, task: str = ELEMENTWISE) -> Profile | NotProfiled:
    request = ProfileRequest(task=Task(name="t", source=task), source=source, protocol=QUICK)
    return bench.runner.run(bench.client.profile(request))


def test_a_call_of_pytorch_is_traced_beside_the_reference(bench: Bench) -> None:
    found = profiled(bench, RIGHT)
    assert isinstance(found, Profile), found
    assert isinstance(found.trace, Trace)
    assert {"aten::tanh", "aten::mul_", "aten::add_", OWN_CODE} <= {part.name for part in found.trace.parts}
    assert found.trace.busy_us > 0
    assert found.trace.gbps == pytest.approx(1048576 / found.trace.busy_us / 1e3)
    assert isinstance(found.reference, Trace)
    assert "aten::mul" in {part.name for part in found.reference.parts}
    assert found.limits.size_bytes == 1048576
    assert found.limits.floor_ms > 0
    assert found.device.bandwidth_gbps > 0
    assert found.device.versions["torch"]
    assert found.code == Missing(reason="the source built no machine code of its own")
    assert found.counters == Missing(reason="hardware counters are read on NVIDIA GPUs only")
    assert found.bottleneck is not None


FRESH = """
import mmap
import torch

traced = []

class ModelNew(torch.nn.Module):
    def forward(self, x):
        if not torch.autograd._profiler_enabled():
            return torch.tanh(x)
        traced.append(x)
        if len(traced) > {times}:
            return torch.sin(x)
        mmap.mmap(-1, 2**22).write(bytes(2**22))
        return torch.cos(x)
"""
"""In so many traced calls it touches new pages, and these calls compute cosines."""


def test_calls_that_touch_new_pages_are_not_what_a_profile_shows(bench: Bench) -> None:
    found = profiled(bench, FRESH.format(times=5))
    assert isinstance(found, Profile), found
    assert isinstance(found.trace, Trace)
    names = {part.name for part in found.trace.parts}
    assert "aten::sin" in names
    assert "aten::cos" not in names


def test_a_model_that_touches_new_pages_in_every_call_is_profiled(bench: Bench) -> None:
    found = profiled(bench, FRESH.format(times="float('inf')"))
    assert isinstance(found, Profile), found
    assert isinstance(found.trace, Trace)
    assert "aten::cos" in {part.name for part in found.trace.parts}


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
def test_the_machine_code_of_a_kernel_is_read(bench: Bench) -> None:
    found = profiled(bench, SEED.read_text(), SOFTMAX.read_text())
    assert isinstance(found, Profile), found
    assert isinstance(found.code, Code), found.code
    names = [kernel.name for kernel in found.code.kernels]
    assert any(name.startswith("softmax") for name in names), names
    assert max(kernel.vector_bits for kernel in found.code.kernels) >= 128
    assert isinstance(found.trace, Trace)
    assert found.trace.parts[0].name == OWN_CODE


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (PLAIN.format(body="raise RuntimeError('no such\\x1b[2J luck')"), "RuntimeError: no such"),
        (PLAIN.format(body="import os; os._exit(3)"), "exit code 3"),
        (PLAIN.format(body="return ("), "SyntaxError"),
        ("import torch", "defines no ModelNew"),
    ],
)
def test_what_cannot_be_called_is_an_answer(bench: Bench, source: str, said: str) -> None:
    found = profiled(bench, source)
    assert isinstance(found, NotProfiled)
    assert said in found.reason
    assert "\x1b" not in found.reason


def test_a_task_of_several_workloads_is_profiled_on_its_first(bench: Bench) -> None:
    found = profiled(bench, RIGHT, WORKLOADS)
    assert isinstance(found, Profile), found
    assert isinstance(found.trace, Trace)
    assert isinstance(found.reference, Trace)


def test_a_candidate_that_is_profiled_does_not_see_the_hidden_workloads(bench: Bench) -> None:
    found = profiled(bench, PLAIN.format(body="raise RuntimeError(open('task.py').read())"), WORKLOADS)
    assert isinstance(found, NotProfiled)
    assert "'rows': 64" in found.reason.replace('"', "'")
    assert "77" not in found.reason


def test_a_task_that_cannot_be_scored_is_refused(bench: Bench) -> None:
    with pytest.raises(UserError, match="admission test"):
        profiled(bench, RIGHT, ELEMENTWISE.replace("torch.tanh(x) * 2 + x", "x + torch.rand_like(x)"))


def test_evaluations_and_profiles_at_once_are_all_answered(bench: Bench) -> None:
    async def all_of_them() -> list[Any]:
        request = ProfileRequest(task=Task(name="t", source=ELEMENTWISE), source=RIGHT, protocol=QUICK)
        return await asyncio.gather(*(bench.client.profile(request) for _ in range(3)))

    assert all(isinstance(found, Profile) for found in bench.runner.run(all_of_them()))
    assert bench.judge(RIGHT).outcome


def test_who_can_wait_does_so_until_nothing_is_evaluated() -> None:
    quiet, done = Quiet(), threading.Event()
    assert quiet.wait(60.0)
    with quiet.busy(), quiet.busy():
        waiting = threading.Thread(target=lambda: (quiet.wait(60.0), done.set()))
        waiting.start()
        assert not done.wait(0.1)
    waiting.join()
    assert done.is_set()
    with quiet.busy():
        assert not quiet.wait(0.05)  # patience ends


KERNEL = KernelCode(
    name="k",
    target="sm_90",
    instructions=9,
    vector_bits=128,
    mix=(Share(kind="fp32", share=1.0),),
    registers=40,
)
TRACE = Trace(
    call_us=9.0,
    busy_us=8.0,
    num_parts=1,
    parts=(Part(name="k", calls=1, us=8.0, share=1.0),),
    gbps=0.0,
    tflops=0.0,
)


def test_what_an_untouched_process_says_is_read_as_it_was_meant() -> None:
    assert told(Trace, codec.encode(TRACE)) == TRACE
    code = Code(kernels=(KERNEL,))
    assert told(Code | Missing, codec.encode(code)) == code
    refusal = Missing(reason="a\x1b[2J" + "x" * 500)
    assert told(Counters | Missing, codec.encode(refusal)).reason == ("a\\x1b[2J" + "x" * 500)[:403]


@pytest.mark.parametrize(
    "changed",
    [
        None,
        [],
        {},
        {"call_us": -1.0},
        {"call_us": "9"},
        {"busy_us": 1e400},
        {"busy_us": True},
        {"num_parts": 1.5},
        {"num_parts": 2**80},
        {"parts": {}},
        {"parts": [{}]},
        {"parts": [{"name": 3}]},
        {"parts": [{**codec.encode(TRACE.parts[0]), "launch": {"grid": [1, 1], "block": [1, 1, 1]}}]},
    ],
)
def test_what_it_never_says_is_forged(changed: Any) -> None:
    raw = {**codec.encode(TRACE), **changed} if changed else changed
    with pytest.raises(CandidateForged):
        told(Trace, raw)


def test_a_name_is_one_line_of_bounded_length() -> None:
    part = {**codec.encode(TRACE.parts[0]), "name": "k\nBottleneck: none" + "x" * 10_000}
    (read,) = told(Trace, {**codec.encode(TRACE), "parts": [part]}).parts
    assert read.name.startswith("k Bottleneck: none")
    assert len(read.name) <= 100


def test_lists_and_shares_are_cut() -> None:
    part = {**codec.encode(TRACE.parts[0]), "share": 7.0}
    read = told(Trace, {**codec.encode(TRACE), "parts": [part] * 1000}).parts
    assert len(read) == 64
    assert {one.share for one in read} == {1.0}


COUNTED = """==PROF== Connected to process 1
"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","k","gpu__time_duration.sum","nsecond","2,500"
"""
JOB = CallBoth(task_source=ELEMENTWISE, source=RIGHT, setup="", device="cuda:0", threads=1, protocol=QUICK)


@pytest.fixture
def ncu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An executable in ncu's place, to be written; the working directory is a scratch folder."""
    program = tmp_path / "bin" / "ncu"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    (tmp_path / "scratch").mkdir()
    monkeypatch.chdir(tmp_path / "scratch")
    return program


@contextmanager
def counting(program: Path, script: str) -> Iterator[Channel]:
    """The end of the one who asks `count`, with ncu doing what `script` does."""
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    ours, theirs = Channel.pair()
    with closing(ours), theirs:
        worker = threading.Thread(target=lambda: profile_process.count(Channel(theirs)))
        worker.start()
        ours.send(JOB)
        yield ours
        worker.join()


def test_ncu_runs_on_only_when_the_device_is_free(ncu: Path) -> None:
    file = ncu.parent / "counted.csv"
    file.write_text(COUNTED)
    with counting(ncu, f"touch ready; while [ ! -e go ]; do sleep 0.02; done; cat {file}") as channel:
        assert channel.receive(NeedsDevice, 30) == NeedsDevice()
        assert not channel.is_readable_within(0.1)
        channel.send(Go())
        found = told(Counters | Missing, channel.receive_json(30))
    assert isinstance(found, Counters)
    assert (found.kernels[0].name, found.kernels[0].us) == ("k", 2.5)


def test_ncu_that_may_not_count_says_so_without_the_device(ncu: Path) -> None:
    refusal = "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission"
    with counting(ncu, f'echo "{refusal}"; exit 1') as channel:
        found = told(Counters | Missing, channel.receive_json(30))
    assert isinstance(found, Missing)
    assert "only administrators" in found.reason
