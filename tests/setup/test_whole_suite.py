"""`make test` runs both parts of the suite, and ends with what was left out."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INI = "[pytest]\nmarkers =\n    gpu\n    quiet\n    patient\n"
PARALLEL = """
import pytest
def test_passes(): pass
def test_fails(): assert 1 == 2
@pytest.mark.skip(reason="needs chromium")
def test_page(): pass
@pytest.mark.skip(reason="needs chromium")
def test_other_page(): pass
@pytest.mark.gpu
def test_on_a_gpu(): pass
"""
QUIET = """
import pytest
pytestmark = pytest.mark.quiet
def test_times(): pass
@pytest.mark.skipif(True, reason="needs root")
def test_times_as_root(): pass
@pytest.mark.gpu
def test_times_on_a_gpu(): pass
"""
PATIENT = """
import pytest
@pytest.mark.patient
def test_waits(): pass
"""
BUSY = """
import pathlib, pytest
@pytest.fixture
def device():
    made = pathlib.Path("made")
    if not made.exists():
        made.touch()
        raise TimeoutError("the machine is busy")
class TestOfKernels:
    @pytest.mark.parametrize("kernel", ["a::b c", "d"])
    def test_is_fast(self, kernel, device): pass
"""
ELEVEN = """
import pathlib, pytest
@pytest.mark.parametrize("number", range(11))
def test_fails_once(number):
    made = pathlib.Path(f"made{number}")
    if not made.exists():
        made.touch()
        raise TimeoutError("the machine is busy")
"""
NO_OTHER_PLUGINS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p xdist"}
"""They take a second of each start of pytest."""
APT = '#!/bin/sh\necho "$@" >> {log}\nexit {code}\n'


def suite(folder: Path, parallel: str, *, apt: str | None) -> subprocess.CompletedProcess[str]:
    """What the script says of a small suite, where there is Python and perhaps `apt-get`."""
    (folder / "pytest.ini").write_text(INI)
    (folder / "test_parallel.py").write_text(parallel)
    (folder / "test_quiet.py").write_text(QUIET)
    programs = folder / "bin"
    programs.mkdir()
    if apt is not None:
        (programs / "apt-get").write_text(apt)
        (programs / "apt-get").chmod(0o755)
    for name in ("sh", "g++", "make"):
        (programs / name).symlink_to(shutil.which(name) or sys.executable)
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "test.py"), "1"],
        cwd=folder,
        env={**os.environ, "PATH": str(programs), **NO_OTHER_PLUGINS},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_second_part_runs_after_a_failure_and_the_end_says_what_was_left_out(tmp_path: Path) -> None:
    (tmp_path / "test_patient.py").write_text(PATIENT)
    done = suite(tmp_path, PARALLEL, apt=None)
    assert done.returncode == 1
    assert "tests that need chromium, " in done.stdout.splitlines()[0]
    first, *reasons, gpu, patient, last = done.stdout.rstrip().splitlines()[-6:]
    assert first == "6 tests: 1 failed, 3 left out"
    assert reasons == ["     2  needs chromium", "     1  needs root"]
    assert gpu == "not begun: 2 that need an NVIDIA GPU: make gpu"
    assert patient == "not begun: 1 that wait for minutes: make cluster"
    assert last.startswith("To run what needs packages too: sudo apt-get install chromium ")


@pytest.mark.slow
@pytest.mark.parametrize("code", [0, 100])
def test_tests_that_are_left_out_are_no_failure_whatever_apt_says(tmp_path: Path, code: int) -> None:
    log = tmp_path / "apt.log"
    done = suite(tmp_path, PARALLEL.replace("1 == 2", "1 == 1"), apt=APT.format(log=log, code=code))
    assert done.returncode == 0, done.stdout
    assert "6 tests: 0 failed, 3 left out" in done.stdout
    asked = log.read_text().splitlines() if log.exists() else []
    if os.geteuid():
        assert asked == []
        assert "sudo apt-get install chromium" in done.stdout
    elif code:
        assert [line.split()[0] for line in asked] == ["update"]
        assert "apt-get update failed; tests that need these packages are left out" in done.stdout
    else:
        assert [line.split()[0] for line in asked] == ["update", "install"]
        assert "chromium" in asked[1].split()


@pytest.mark.slow
def test_what_passes_when_it_is_run_again_is_named_and_is_no_failure(tmp_path: Path) -> None:
    done = suite(tmp_path, BUSY, apt=None)
    assert done.returncode == 0, done.stdout
    assert "make test: 1 failed; they run once more, alone" in done.stdout
    assert "4 tests: 0 failed, 1 left out" in done.stdout
    assert done.stdout.rstrip().splitlines()[-2:] == [
        "passed only when run again: 1",
        "  test_parallel.py::TestOfKernels::test_is_fast[a::b c]",
    ]


@pytest.mark.slow
def test_more_than_ten_failures_have_a_cause_and_are_not_run_again(tmp_path: Path) -> None:
    done = suite(tmp_path, ELEVEN, apt=None)
    assert done.returncode == 1
    assert "13 tests: 11 failed" in done.stdout
    assert "again" not in done.stdout
