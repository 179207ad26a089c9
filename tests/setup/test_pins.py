"""The pinned versions install on every Python that kbopt supports, the oldest patch release included."""

from importlib.metadata import PackageNotFoundError, metadata

import pytest
from packaging.specifiers import SpecifierSet

from scripts.install import ROOT

PINS = [
    line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
]


@pytest.mark.parametrize("name", PINS)
def test_a_pin_takes_the_oldest_pythons(name: str) -> None:
    try:
        wanted = SpecifierSet(metadata(name).get("Requires-Python") or "")
    except PackageNotFoundError:  # a pin for another platform
        return
    assert [version for version in ("3.11.0", "3.12.0", "3.13.0") if version not in wanted] == []
