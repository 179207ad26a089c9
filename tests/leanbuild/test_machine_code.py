import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc (not a GPU)")
def test_lean_and_full_headers_give_the_same_machine_code(tmp_path: Path) -> None:
    command = ["-m", "benchmarks.lean_headers", "--kernels", "--only", "inline_00", "--work", str(tmp_path)]
    answer = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=850, check=True
    )
    assert "inline_00_tensor3d slim and full: same, 1 kernels" in answer.stdout
    assert "inline_00_tensor3d core and full: same, 1 kernels" in answer.stdout
