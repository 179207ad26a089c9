"""Cores that are kept for what is timed, with real processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kbopt.evaluation.server.cores import Cores, chosen_of

FAMILY = """
import os, sys, threading, time
pid = os.fork()
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print(pid or "child", threading.active_count(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def family() -> Iterator[list[int]]:
    """A process with two threads and a child that has two as well."""
    with subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        lines = [parent.stdout.readline(), parent.stdout.readline()]
        child = next(int(line.split()[0]) for line in lines if "child" not in line)
        yield [parent.pid, child]
        for pid in (child, parent.pid):
            os.kill(pid, 9)


def affinities(pids: list[int]) -> list[set[int]]:
    return [
        os.sched_getaffinity(int(thread.name))
        for pid in pids
        for thread in Path(f"/proc/{pid}/task").iterdir()
    ]


def test_all_threads_of_all_descendants_are_on_the_kept_cores_while_they_are_timed(family: list[int]) -> None:
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        pytest.fail("this machine has one core: nothing can be kept")
    cores = Cores(frozenset({first}), frozenset(others))

    with cores.timed(family[0]):
        assert affinities(family) == [{first}] * 4
    assert affinities(family) == [set(others)] * 4


def test_a_process_that_has_ended_is_passed_over() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    with Cores(frozenset({0}), frozenset({1})).timed(ended.pid):
        pass


def test_with_no_core_kept_nothing_is_moved(family: list[int]) -> None:
    before = affinities(family)
    with Cores().timed(*family):
        assert affinities(family) == before


def test_both_threads_of_a_physical_core_are_kept(tmp_path: Path) -> None:
    for core in range(16):
        folder = tmp_path / f"cpu{core}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{core % 8},{core % 8 + 8}\n")
    assert chosen_of(range(16), tmp_path) == {6, 7, 14, 15}
    assert chosen_of(range(12), tmp_path) == {4, 5, 6, 7}


def test_without_the_machines_topology_each_core_counts_as_one(tmp_path: Path) -> None:
    assert chosen_of(range(16), tmp_path) == {12, 13, 14, 15}
