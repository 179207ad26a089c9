"""`kbopt run --backend modal` as users start it: drivers with a Ray of their own, over the loopback plane."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kbopt.backends.modal_client import container_status, stop
from kbopt.core.events import BackendStarted, Evaluated, Rented
from kbopt.store.journal import JournalReader
from tests.support.processes import descendants, kill_family

MODAL = ("--backend", "modal", "--gpu", "A10", "--warm-minutes", "3", "--task", "quick/matmul", "--json")
RUN = ("run", *MODAL, "--num-steps", "1", "--trials", "1", "--timed", "10")

STEPS = ["load a task", "load a kernel", "open the backend", "3 evaluations", "equal code"]

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(plane, monkeypatch) -> Iterator[Start]:
    """Starts `kbopt` as a driver that knows the plane has CPUs only; ends what is left of it."""
    monkeypatch.setenv("KBOPT_MODAL_DEVICE", "cpu")
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "kbopt", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, text=True, start_new_session=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            kill_family(process.pid)
        process.communicate()


def finished(process: subprocess.Popen[str]) -> tuple[dict, str]:
    """The driver's JSON, and what it said on stderr."""
    output, errors = process.communicate(timeout=240)
    assert output, errors
    return json.loads(output), errors


def events(folder: Path, kind: type) -> list:
    if not (folder / "journal.sqlite").exists():
        return []
    with JournalReader(folder / "journal.sqlite") as journal:
        return [entry.event for entry in journal.entries() if isinstance(entry.event, kind)]


def eventually(predicate: Callable[[], object], timeout_s: float = 150.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not predicate():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.02)


def evaluator_actor(driver: int) -> int:
    """The process of the driver's evaluator actor."""
    (pid,) = (
        pid
        for pid in descendants(driver)
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::EvaluatorActor")
    )
    return pid


@pytest.mark.slow
@pytest.mark.timeout(600)  # two searches, a doctor and a container take 150 s of a processor
def test_drivers_at_once_and_later_share_one_container_and_a_lost_evaluator_actor_repeats_nothing(
    plane, start, tmp_path
):
    before = plane.counters()
    first, second = tmp_path / "first", tmp_path / "second"
    drivers = [
        start(*RUN, "--out", first, "--num-candidates", 3),
        start(*RUN, "--out", second, "--num-candidates", 2, "--seed", 1),
    ]
    eventually(lambda: plane.counters()["running"] and events(first, Evaluated))
    os.kill(evaluator_actor(drivers[0].pid), signal.SIGKILL)
    documents, said = zip(*map(finished, drivers), strict=True)

    counters = plane.counters()
    assert counters["deployments"] == before["deployments"] + 1
    assert counters["cold_starts"] == before["cold_starts"] + 1
    assert sum(document["cold_starts"] for document in documents) == 1
    (boot,) = {event.boot for folder in (first, second) for event in events(folder, BackendStarted)}
    assert all(f"backend warm (boot {boot}, up " in text for text in said)
    assert all("at no cost; 1 A10 container for $1.73 an hour" in text for text in said)
    assert all("End it with: kbopt modal stop --gpu A10 --warm-minutes 3.0\n" in text for text in said)
    assert sum("building the image" in text or "App deployed" in text for text in said) == 1
    container = container_status("A10", warm_minutes=3)
    assert container.info.boot == boot
    assert [document["proposals"] for document in documents] == [3, 2]
    measured = sum(len(events(folder, Evaluated)) for folder in (first, second))
    assert container.info.num_evaluations == measured

    for folder, document in zip((first, second), documents, strict=True):
        (held,) = document["containers"]
        assert held["gpu"] == "A10"
        assert 0 < held["seconds"] <= document["seconds"] + 1.0
        paid = sum(event.rent.usd for event in events(folder, Rented))
        assert document["usd"] == pytest.approx(paid) == pytest.approx(held["usd"])

    doctor, _ = finished(start("doctor", *MODAL))
    steps = doctor["steps"]
    assert [step["name"] for step in steps] == STEPS
    assert [step["ok"] for step in steps[:3]] == [True] * 3
    assert re.search(rf"boot {boot}, age \d+ s, isolated ", steps[2]["detail"])
    # Whether the times can be believed depends on how busy this machine is.
    assert len(re.findall("(measured|rejected), ", steps[3]["detail"])) == 3
    assert f"all in the same container ({boot})" in steps[3]["detail"]
    assert doctor["cold_starts"] == 0
    assert plane.counters()["cold_starts"] == before["cold_starts"] + 1
    assert stop(warm_minutes=3)
