"""Real processes, several at once."""

import sys
from pathlib import Path

from kbopt.leanbuild.compilers import run_side_by_side


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_what_all_of_them_say_is_returned(tmp_path: Path) -> None:
    assert run_side_by_side([_python("print(1)"), _python("print(2)")], tmp_path) == (True, "1\n2\n")


def test_after_a_failure_only_the_failed_are_heard(tmp_path: Path) -> None:
    waits = _python("import time; print('waits', flush=True); time.sleep(600)")
    assert run_side_by_side([waits, _python("exit('no')")], tmp_path) == (False, "no\n")


def test_what_does_not_end_is_ended_and_named(tmp_path: Path) -> None:
    ok, log = run_side_by_side(
        [_python("pass"), _python("import time; time.sleep(600)")], tmp_path, timeout_s=0.5
    )
    assert not ok
    assert log.startswith("no end after 0.5 s: ")
    assert "time.sleep(600)" in log
