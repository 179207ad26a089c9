"""The wheel is whole: installed without the checkout, kbopt searches from an empty folder."""

import site
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def output(*command: object, folder: Path) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_wheel_searches_from_an_empty_folder(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    build = ("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT)
    output(sys.executable, "-m", "pip", *build, folder=empty)
    [wheel] = tmp_path.glob("kbopt-*.whl")
    output(sys.executable, "-m", "venv", tmp_path / "venv", folder=empty)
    python = tmp_path / "venv" / "bin" / "python"
    output(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel, folder=empty)
    packages = Path(
        output(python, "-c", "import site; print(site.getsitepackages()[0])", folder=empty).strip()
    )
    (packages / "others.pth").write_text(
        "\n".join(site.getsitepackages())
    )  # what it depends on, but not kbopt
    assert output(python, "-c", "import kbopt; print(kbopt.__file__)", folder=empty).startswith(str(packages))
    kbopt = python.with_name("kbopt")
    assert "Search for faster GPU kernels" in output(kbopt, "--help", folder=empty)
    assert "quick/gelu" in output(kbopt, "tasks", folder=empty)
    simulated = ("--task", "sim/smooth", "--backend", "simulated", "--proposer", "simulated")
    output(kbopt, "run", *simulated, "--max-evals", 5, "--out", "run", folder=empty)
    assert {"best.py", "report.html", "journal.sqlite"} <= {path.name for path in (empty / "run").iterdir()}
