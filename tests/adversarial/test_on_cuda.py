"""The whole suite on a GPU, as `python3 tests/adversarial/run.py --device cuda` runs it."""

from __future__ import annotations

import asyncio

import pytest

from tests.adversarial.run import run
from tests.adversarial.suite import table

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]


def test_no_hole_and_no_honest_source_wronged_on_cuda() -> None:
    findings, ends = asyncio.run(run("cuda", []))
    print("\n" + table([*findings, *(end.finding for end in ends)]))
    assert [finding.problem for finding in findings if finding.problem] == []
    assert [end.finding.problem or end.leftover for end in ends if end.finding.problem or end.leftover] == []
    assert all(end.seconds < end.limit_s for end in ends)
