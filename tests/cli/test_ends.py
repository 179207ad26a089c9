"""What a user reads, and what the shell gets, of every exception that a command may end with."""

import sqlite3
from pathlib import Path

import pytest

from kbopt.cli import INFRA_ERROR, USER_ERROR, explained
from kbopt.core.codec import CodecError
from kbopt.core.errors import InfraError, UserError


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (UserError("no such task"), USER_ERROR, "no such task"),
        (InfraError("the device is gone"), INFRA_ERROR, "the device is gone"),
        (ExceptionGroup("two", [InfraError("lost"), UserError("later")]), INFRA_ERROR, "lost"),
        (ExceptionGroup("outer", [ExceptionGroup("inner", [UserError("bad task")])]), USER_ERROR, "bad task"),
        (PermissionError(13, "Permission denied", "sweeps"), USER_ERROR, "Choose a path that you may"),
        (IsADirectoryError(21, "Is a directory", "x.py"), USER_ERROR, "'x.py'"),
        (OSError(36, "File name too long", "aaa"), USER_ERROR, "'aaa'. Choose a path"),
        (OSError(30, "Read-only file system", "x.py"), USER_ERROR, "'x.py'. Choose a path"),
        (ConnectionError("refused"), INFRA_ERROR, "ConnectionError: refused"),
        (OSError(28, "No space left on device"), INFRA_ERROR, "No space left on device"),
        (sqlite3.OperationalError("database is locked"), INFRA_ERROR, "database is locked"),
        (CodecError("$.seed: expected int, not 'x'"), USER_ERROR, "$.seed: expected int"),
    ],
)
def test_an_exception_is_one_line_and_an_exit_code(error: Exception, code: int, told: str) -> None:
    message, exit_code = explained(error)
    assert exit_code == code
    assert told in message
    assert "\n" not in message


def test_a_fault_of_kbopt_is_one_line_that_says_where_its_traceback_is() -> None:
    message, exit_code = explained(ZeroDivisionError("by zero"))
    assert exit_code == INFRA_ERROR
    assert message.startswith("unexpected ZeroDivisionError: by zero. The traceback is in ")
    path = Path(message.split(" is in ")[1].split(";")[0])
    assert "ZeroDivisionError: by zero" in path.read_text()
    path.unlink()
