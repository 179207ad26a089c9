"""The cluster of `ray_cluster.yaml` on machines of namespaces, and what is asked of it over ssh."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from kbopt.core.events import Evaluated, Proposed
from kbopt.store.journal import JournalReader
from tests.support.machines import ROOT, Machine, Network, missing

WHY_NOT = missing()
MARKS = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(600),  # a machine that does other work as well starts Ray slowly
    pytest.mark.skipif(WHY_NOT is not None, reason=f"machines in namespaces: {WHY_NOT}"),
]
"""Of a file of tests on such a cluster."""

EVALUATIONS = 400
"""The budget of each search."""

RESOURCE = """--resources='{"evaluator": 1}'"""
ADDRESSES = {"head": 1, "worker": 2}
ACTORS = {"evaluator": "ray::Evaluator", "coordinator": "ray::Coordinator", "explorer": "ray::Explorer"}


class RayMachines:
    """A head and a worker that are on, and a client with the shipped cluster file, filled in.

    With `evaluator_env` the worker has the resource `evaluator` in place of the head, as docs/cluster.md says
    for a GPU there, and its Ray these variables.
    """

    def __init__(self, folder: Path, evaluator_env: Mapping[str, str] | None = None) -> None:
        self._network = Network(folder)
        self._evaluator_env = evaluator_env
        self.file = folder / "ray_cluster.yaml"
        self.folder = folder
        self._drivers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._network.__enter__()
        for name, host in ADDRESSES.items():
            self._network.switch_on(name, host)
        text = (ROOT / "ray_cluster.yaml").read_text()
        moved = {}
        if self._evaluator_env is not None:
            variables = " ".join(f"{name}={value}" for name, value in self._evaluator_env.items())
            start = "MALLOC_ARENA_MAX=1 ray start"
            moved = {
                f"{RESOURCE} --autoscaling": "--autoscaling",
                f"{start} --address": f"{variables} {start} {RESOURCE} --address",
            }
        for shipped, ours in {
            **moved,
            "cluster_name: kbopt": f"cluster_name: kbopt-{uuid.uuid4().hex}",  # Ray keeps files in /tmp by it
            "192.0.2.1": self.head.address,
            "192.0.2.2": self.worker.address,
            "ubuntu": "root",
            "~/.ssh/id_ed25519": str(self._network.keys / "client"),
        }.items():
            assert shipped in text
            text = text.replace(shipped, ours)
        self.file.write_text(text)
        token = self._network.client_home / ".ray" / "auth_token"
        token.parent.mkdir()
        token.write_text("0123456789abcdef" * 4)
        token.chmod(0o600)
        (self.head.home / "pace").write_text("0.1")
        return self

    def __exit__(self, *error: object) -> None:
        for driver in self._drivers:
            driver.kill()
            driver.wait()
        self._network.__exit__(*error)

    @property
    def head(self) -> Machine:
        return self._network.machines["head"]

    @property
    def worker(self) -> Machine:
        return self._network.machines["worker"]

    def switch_on(self, name: str) -> None:
        self._network.switch_on(name, ADDRESSES[name])

    def ray(self, command: str, *arguments: str, timeout_s: float = 150) -> str:
        """What `ray COMMAND CLUSTER_FILE ARGUMENTS` prints on the client. Raises where it fails."""
        line = self._network.client(
            "ray", command, *arguments[: command in ("up", "down")], str(self.file),
            *arguments[command in ("up", "down") :], RAY_UP_enable_autoscaler_v2="0",
        )  # fmt: skip
        done = subprocess.run(
            line,
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"ray {command} exits with {done.returncode}\n{done.stdout[-6000:]}")
        return done.stdout

    def drive(self, name: str, *options: str, evaluations: int = EVALUATIONS) -> subprocess.Popen[bytes]:
        """A driver on the head, as `ray submit` would start it, of a sweep of two searches."""
        return self.start(
            name,
            "python -m tests.support.logged_sweep ~/log ~/pace --address auto "
            f"--backend simulated --proposer simulated --name {name} --tasks sim/smooth --seeds 1 "
            f"--algorithms PS,PS_Summarizer --max-evals {evaluations} --explorers 16 {' '.join(options)}",
        )

    def start(self, name: str, command: str) -> subprocess.Popen[bytes]:
        """Start `command` on the head; what it says goes to `output(name)`."""
        with self.output(name).open("ab") as stream:
            driver = subprocess.Popen(
                self.head.command("bash", "-lc", f". ~/.bashrc; exec {command}"),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        self._drivers.append(driver)
        return driver

    def output(self, name: str) -> Path:
        """What the drivers of the sweep said, on stdout and stderr."""
        return self.folder / f"{name}.out"

    def evaluated(self, name: str) -> Mapping[str, Counter[tuple[str, int]]]:
        """By search, how often each measurement of the budget is in the journal; cached ones are not."""
        found: dict[str, Counter[tuple[str, int]]] = {}
        for path in sorted((self.head.home / "sweeps" / name).glob("*/journal.sqlite")):
            with JournalReader(path) as journal:
                events = [entry.event for entry in journal.entries()]
            found[path.parent.name] = Counter(
                (e.candidate, e.repeat)
                for e in events
                if isinstance(e, Evaluated) and not e.cached and not e.is_final
            )
        return found

    def total(self, name: str) -> int:
        return sum(counted.total() for counted in self.evaluated(name).values())

    def begun(self) -> int:
        """How many measurements the device began, for whichever search."""
        return len((self.head.home / "log").read_text().split())

    def measured(self, *names: str) -> set[tuple[Path, str, int]]:
        """The search's folder, source and repeat of all that the sweeps' searches know the result of.

        Searches share nothing unasked: a source that two of them came by is measured for each.
        """
        found = set()
        for name in names:
            for path in sorted((self.head.home / "sweeps" / name).glob("*/journal.sqlite")):
                with JournalReader(path) as journal:
                    events = [entry.event for entry in journal.entries()]
                sources = {e.candidate.id: e.candidate.source for e in events if isinstance(e, Proposed)}
                found |= {
                    (path.parent, sources[e.candidate], e.repeat) for e in events if isinstance(e, Evaluated)
                }
        return found

    def actors(self, kind: str) -> list[int]:
        """Processes of the actors of this kind, on all machines."""
        return [pid for m in self._network.machines.values() for pid in m.processes(ACTORS[kind])]

    def goes_on(self, *names: str, by: int = 6, timeout_s: float = 180) -> None:
        """Wait until every sweep of `names` has `by` more evaluations than now."""
        before = {name: self.total(name) for name in names}
        for name in names:
            wanted = before[name] + by
            wait_until(
                lambda name=name, wanted=wanted: self.total(name) >= wanted,  # type: ignore[misc]
                f"sweep {name} has {wanted} evaluations",
                timeout_s=timeout_s,
            )


def kill(pids: list[int]) -> None:
    assert pids, "there is nothing to kill"
    for pid in pids:
        with suppress(ProcessLookupError):  # It may have ended since it was found.
            os.kill(pid, signal.SIGKILL)


def wait_until(true: Callable[[], bool], what: str, *, timeout_s: float = 180) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.2)
