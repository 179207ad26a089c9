"""Two users of one Ray, which needs neither machines of namespaces nor ssh."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kbopt.core.events import Asked
from kbopt.store.journal import JournalReader
from tests.cli.test_run import SIMULATED, command, wait_for_evaluations

HEAD = """
import sys, ray
found = ray.init(
    address="local", num_cpus=4, resources={"evaluator": 1}, include_dashboard=False, logging_level="ERROR"
)
print(found.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""
OPTIONS = ("--tasks", "sim/smooth", "--seeds", 1, "--explorers", 2, *SIMULATED[2:])


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Ray on this machine that ends with the test."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with subprocess.Popen(
        [sys.executable, "-c", HEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as head:
        assert head.stdout is not None
        yield head.stdout.readline().strip()
        head.communicate()


def sweep(folder: Path, address: str, max_evals: int) -> subprocess.Popen[str]:
    folder.mkdir()
    return subprocess.Popen(
        command("sweep", *OPTIONS, "--max-evals", max_evals, "--address", address),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_a_sweep_of_the_same_name_from_another_folder_is_refused(address: str, tmp_path: Path) -> None:
    first = sweep(tmp_path / "one", address, 2000)
    try:
        wait_for_evaluations(tmp_path / "one" / "sweeps" / "sweep" / "sim-smooth-PS-s0", 1)
        second = sweep(tmp_path / "two", address, 3)
        said, _ = second.communicate(timeout=90)
        assert second.returncode == 2, said
        assert "a sweep 'sweep' of another folder" in said
        assert "choose another --name" in said
        for path in (tmp_path / "two").rglob("journal.sqlite"):
            with JournalReader(path) as journal:
                assert not [entry for entry in journal.entries() if isinstance(entry.event, Asked)]
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
