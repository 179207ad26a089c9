"""Where other processes ask the one that holds the device."""

import tempfile
from pathlib import Path

import pytest

from kbopt import Evaluator
from kbopt.adapters.asking import LONGEST_FOLDER, answering, ask_model


def test_questions_are_answered_where_the_folder_for_temporary_files_has_a_long_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / ("x" * LONGEST_FOLDER)
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with answering(Evaluator(backend="local"), "", lambda messages: messages[-1]["content"]) as address:
        assert ask_model(address, [{"role": "user", "content": "again"}]) == "again"
