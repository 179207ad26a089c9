"""Which calls of the candidate the reference's worker makes too, and where processes have their heaps."""

import random
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from kbopt.core.protocol import EvalProtocol
from kbopt.evaluation.judge.calls import Calls
from kbopt.evaluation.judge.worker import Exchange


class Recorder:
    """A worker whose calls take `wall_ns` and return nothing."""

    base = 0
    input_buffer = SimpleNamespace(size_bytes=0)

    def __init__(self, wall_ns: int) -> None:
        self._wall_ns = wall_ns
        self.operations: list[str] = []

    def exchange(self, operation: str, draws: list[object]) -> Exchange:
        self.operations.append(operation)
        return Exchange(outputs=[], wall_ns=self._wall_ns, cpu_ns=1, offsets=[])

    def release(self) -> None:
        pass


@pytest.mark.parametrize(
    ("device", "call_ms", "repeated"), [("cpu", 1, ["run"]), ("cpu", 100, []), ("cuda", 1, [])]
)
def test_the_reference_makes_the_candidates_brief_calls_on_a_cpu(
    device: str, call_ms: int, repeated: list[str]
) -> None:
    reference = SimpleNamespace(device=torch.device(device), name_of=str, written=())
    admission = SimpleNamespace(expected=None, aliases_inputs=False, kept=frozenset())
    ours, theirs = Recorder(call_ms * 1_000_000), Recorder(1_000_000)
    calls = Calls(reference, admission, EvalProtocol(), theirs, random.Random(1))
    calls.worker = ours

    calls.call("run", [object()], [])

    assert ours.operations == ["run"]
    assert theirs.operations == repeated


FORKS = """
import os, torch
from kbopt.evaluation.sandbox import linux
for number in range(11):
    if (pid := os.fork()) == 0:
        linux.keep_freed_memory()
        if number >= 3:
            linux.shift_heap()
        print(torch.empty(2**20).data_ptr(), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
"""
"""Eleven processes that are forked from one print where they get a tensor of 4 MiB."""


def test_processes_that_are_forked_from_one_have_their_tensors_at_different_addresses() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    addresses = [int(line) for line in done.stdout.split()]

    assert len(addresses) == 11
    assert len(set(addresses[:3])) == 1, "without a shift"
    assert len(set(addresses[3:])) == 8
    assert {address % 64 for address in addresses} == {0}
