"""What tells one search's results from another's."""

from dataclasses import replace
from pathlib import Path

from tests.cluster.lab import spec


def test_searches_of_one_name_share_results_only_where_they_are_told_to(tmp_path: Path) -> None:
    one, other = (replace(spec(tmp_path / sweep), name="gelu-PS-s0") for sweep in ("a", "b"))
    assert one.scope != other.scope
    assert one.scope == replace(one, folder=Path(one.folder, "..", one.folder.name)).scope
    assert replace(one, shares_results=True).scope == replace(other, shares_results=True).scope
