"""What tells one search's results from another's, and what of Ray's words reaches the terminal."""

from dataclasses import replace
from pathlib import Path

import pytest

from kbopt.cluster.session import _WithoutRetries
from tests.cluster.lab import spec


def test_searches_of_one_name_share_results_only_where_they_are_told_to(tmp_path: Path) -> None:
    one, other = (replace(spec(tmp_path / sweep), name="gelu-PS-s0") for sweep in ("a", "b"))
    assert one.scope != other.scope
    assert one.scope == replace(one, folder=Path(one.folder, "..", one.folder.name)).scope
    assert replace(one, shares_results=True).scope == replace(other, shares_results=True).scope


def test_calls_that_ray_tries_again_are_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    again = "(raylet) Task CoordinatorActor.lease failed. There are infinite retries remaining, so the task"
    print(again, file=_WithoutRetries())
    print("(raylet) The node is out of memory", file=_WithoutRetries())
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "(raylet) The node is out of memory\n")
