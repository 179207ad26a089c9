"""A few of the broken messages that `fuzz.py` sends for minutes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.adversarial.fuzz import fuzz


@pytest.mark.slow
def test_broken_messages_end_no_judge(tmp_path: Path) -> None:
    found = fuzz("cpu", range(30), math.inf, tmp_path)
    assert not found.problems
    assert sum(found.outcomes.values()) == 32
    assert found.outcomes["rejected"] > 10
