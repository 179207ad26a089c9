"""What a candidate's author is told."""

from pathlib import Path
from typing import get_args

import pytest

from kbopt.core.types import Family, Rejected
from kbopt.evaluation.server.feedback import for_outcome

MANUAL = Path(__file__).parents[2] / "docs" / "evaluation.md"


@pytest.mark.parametrize("family", get_args(Family))
def test_each_reason_of_a_rejection_has_a_remedy_and_is_in_the_manual(family: Family) -> None:
    told = for_outcome(Rejected(reason="what was seen", family=family))
    assert told.startswith(f"Rejected as {family}: what was seen. ")
    assert len(told.split(". ", 1)[1]) > 20
    assert family in MANUAL.read_text()
