"""The first search that a newcomer starts: it is a search, and shows one."""

import os
import subprocess
from pathlib import Path

import pytest

from kbopt.core.events import Asked, Evaluated, Proposed
from kbopt.core.outcomes import Measured
from kbopt.store.journal import JournalReader
from tests.cli.test_run import command

ROOT = Path(__file__).parents[2]


def test_make_run_is_kbopt_run_without_an_option() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--old-file", ".venv/.installed", "run"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in ("ARGS", "MAKEFLAGS")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1].split() == [".venv/bin/kbopt", "run"]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_it_varies_what_was_measured_best_and_not_only_what_ships(tmp_path: Path) -> None:
    """Times differ from run to run, so the test looks at the lineage: whose child was asked for, and when.

    All is as `kbopt run` has it but the length of a measurement.
    """
    done = subprocess.run(
        command("run", "--out", "run", "--trials", 1, "--timed", 10),
        cwd=tmp_path,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with JournalReader(tmp_path / "run" / "journal.sqlite") as journal:
        events = [entry.event for entry in journal.entries()]
    made = {event.candidate.id: event.candidate for event in events if isinstance(event, Proposed)}
    measured: set[str] = set()
    first: dict[str, str] = {}
    for event in events:
        if isinstance(event, Asked) and event.parent is not None:
            assert event.parent in measured
        if isinstance(event, Evaluated) and isinstance(event.result.outcome, Measured):
            measured.add(event.candidate)
            first.setdefault(made[event.candidate].source, event.candidate)
    children = [name for name in first.values() if made[name].parent is not None]
    assert len(children) >= 3, "kernels that were measured first as somebody's child"
    assert "best " in done.stdout
