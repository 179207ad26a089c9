"""`kbopt serve` on a disk that becomes full and has room again: nothing is lost, and nobody hangs."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.agents import SIMULATED, TOKEN, http_server, kbopt, simulated

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, with room for two runs and their pages."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, free_bytes: int) -> None:
    """Leave so much room on `disk`."""
    ballast = disk / "ballast"
    descriptor = os.open(ballast, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    try:
        while os.write(descriptor, b"x" * 4096):
            pass
    except OSError:
        os.truncate(ballast, os.fstat(descriptor).st_size - free_bytes)
    finally:
        os.close(descriptor)


def test_a_full_disk_costs_no_evaluation_and_the_session_goes_on_when_there_is_room(small: Path) -> None:
    with (
        http_server(small / "runs", *SIMULATED, "--max-evals", 3, what="serve") as (_, url),
        httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=40) as client,
    ):

        def evaluate(level: int) -> dict[str, Any]:
            body = {"task": "sim/smooth", "kernels": [{"kernel": simulated(level)}]}
            answer: dict[str, Any] = client.post("/evaluate?wait_s=20", json=body).json()["answer"][
                "evaluations"
            ][0]
            return answer

        def left() -> int:
            number: int = client.get("/tasks").json()["evaluations_left"]
            return number

        assert evaluate(2)["outcome"] == "measured"
        seen = []
        # Where the room ends before a brief, between it and its kernel, or between these and the result.
        for level, free_bytes in enumerate((0, 4096, 8192, 12288), 3):
            fill(small, free_bytes)
            seen.append(evaluate(level))
            (small / "ballast").unlink()
        failed = [one for one in seen if one.get("error") == "machine_failed"]
        assert len(failed) >= 3
        assert all(
            "database or disk is full. Try the same call once more" in one["message"] for one in failed
        )
        assert left() == 2 - (len(seen) - len(failed))
        fill(small, 0)
        refused = client.post("/submit?wait_s=30", json={}).json()
        assert (refused["state"], refused["answer"]["error"]) == ("failed", "machine_failed")
        (small / "ballast").unlink()
        assert evaluate(12)["outcome"] == "measured"
        done = client.post("/submit?wait_s=30", json={}).json()
        assert done["state"] == "done"
        assert Path(done["answer"]["winner_file"]).read_text() == simulated(12)
        assert client.get("/history").json()["evaluations_left"] <= 1
    shown = kbopt("show", done["answer"]["report"].removesuffix("/report.html"))
    assert shown.returncode == 0, shown.stderr


def test_a_server_ends_on_a_full_disk_and_each_of_its_runs_can_be_resumed(small: Path) -> None:
    with (
        http_server(small / "runs", *SIMULATED, what="serve") as (_, url),
        httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=40) as client,
    ):
        for task in ("sim/smooth", "sim/rugged"):
            body = {"task": task, "kernels": [{"kernel": simulated(3)}]}
            assert client.post("/evaluate?wait_s=20", json=body).json()["state"] == "done"
        fill(small, 0)
    (small / "ballast").unlink()
    runs = list((small / "runs").iterdir())
    assert len(runs) == 2
    assert [kbopt("resume", run).returncode for run in runs] == [0, 0]
