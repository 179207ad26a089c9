from __future__ import annotations

from pathlib import Path

import pytest
from shinka.launch import JobScheduler, LocalJobConfig

from kbopt import Evaluator
from kbopt.adapters.shinka import evaluator_file
from tests.library.kernels import FAST, REFERENCE, WRONG

pytestmark = pytest.mark.slow


def test_shinkas_jobs_read_what_the_program_leaves(evaluator: Evaluator, tmp_path: Path) -> None:
    for name, source in (("fast", FAST), ("wrong", WRONG)):
        (tmp_path / f"{name}.py").write_text(f"# EVOLVE-BLOCK-START\n{source}\n# EVOLVE-BLOCK-END\n")
    with evaluator_file(evaluator, REFERENCE) as path:
        scheduler = JobScheduler("local", LocalJobConfig(eval_program_path=str(path)))
        found = {
            name: scheduler.run(str(tmp_path / f"{name}.py"), str(tmp_path / name))[0]
            for name in ("fast", "wrong")
        }
    assert found["fast"]["correct"] == {"correct": True, "error": None}
    assert found["fast"]["metrics"]["combined_score"] > 0.0
    assert found["fast"]["metrics"]["public"]["outcome"] == "measured"
    assert found["wrong"]["metrics"]["combined_score"] == 0.0
    assert not found["wrong"]["correct"]["correct"]
    assert "wrong_answer" in found["wrong"]["correct"]["error"]
    dead = scheduler.run(str(tmp_path / "fast.py"), str(tmp_path / "dead"))[0]
    assert (dead["correct"], dead["metrics"]) == ({"correct": False}, {})
