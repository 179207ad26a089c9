"""A few of the broken messages that `fuzz.py` sends for minutes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.adversarial.fuzz import fuzz

ENDED_THE_JUDGE = (184, 265, 360, 625, 812)
"""Their structure of outputs is none, which the judge read as if it were."""


@pytest.mark.slow
def test_broken_messages_end_no_judge(tmp_path: Path) -> None:
    numbers = (*range(30), *ENDED_THE_JUDGE)
    found = fuzz("cpu", numbers, math.inf, tmp_path)
    assert not found.problems
    assert sum(found.outcomes.values()) == len(numbers) + 2
    assert found.outcomes["rejected"] > 10
