"""What the evaluator says that it does: phases of real evaluations, in their order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kbopt.core.evaluations import EvalRequest
from kbopt.core.ports import Phase
from kbopt.core.task import Task
from kbopt.evaluation.client import ServiceClient
from kbopt.evaluation.server.activity import Activity
from tests.evaluation.conftest import ELEMENTWISE, QUICK

PLAIN = "import torch\n\nclass ModelNew(torch.nn.Module):\n    def forward(self, x):\n        return {}\n"
RIGHT = PLAIN.format("torch.tanh(x) * 2 + x")


class Listening(ServiceClient):
    """A client that keeps all that its service says of its phases."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(device="cpu", state_dir=state_dir)
        self.said: list[Mapping[Phase, int]] = []

    def _take_answer(self, message: Any) -> None:
        super()._take_answer(message)
        if "phases" in message:
            self.said.append(self.phases)

    async def judge(self, source: str, **asked: bool) -> list[Mapping[Phase, int]]:
        """What was said while `source` was judged."""
        before = len(self.said)
        task = Task(name="t", source=ELEMENTWISE)
        await self.evaluate(EvalRequest(task=task, source=source, protocol=QUICK, **asked))
        while self.phases:  # The last line comes after the answer.
            await asyncio.sleep(0.01)
        return self.said[before:]


async def test_an_evaluation_is_admitted_built_checked_timed_and_compared_and_says_so(tmp_path: Path) -> None:
    client = Listening(tmp_path)
    await client.open()
    try:
        first = await client.judge(RIGHT)
        again = await client.judge(f"{RIGHT}# again")
        wrong = await client.judge(PLAIN.format("x"))
        both = await client.judge(f"{RIGHT}# both", kernelbench=True)
    finally:
        await client.close()
    phases = [next(iter(said), None) for said in first]
    assert [phase for phase in phases if phase != "waiting"][:4] == [
        "building",
        "admitting",
        "checking",
        "timing",
    ]
    assert phases[0] == "waiting"
    assert phases[-1] is None
    assert all(set(said.values()) <= {1} for said in first)
    assert not any("admitting" in said for said in again)
    assert any("timing" in said for said in again)
    assert {phase for said in wrong for phase in said} == {"waiting", "building", "checking"}
    assert [phase for said in both for phase in said if phase != "waiting"][-1] == "comparing"
    assert client.phases == {}


async def test_of_two_requests_one_waits_for_the_device(tmp_path: Path) -> None:
    client = Listening(tmp_path)
    await client.open()
    try:
        await asyncio.gather(client.judge(RIGHT), client.judge(f"{RIGHT}# two"))
    finally:
        await client.close()
    assert {"waiting": 1, "timing": 1} in client.said
    assert not any(said.get("timing", 0) + said.get("checking", 0) > 1 for said in client.said)


async def test_a_service_that_dies_does_nothing_any_more(tmp_path: Path) -> None:
    client = Listening(tmp_path)
    await client.open()
    client.phases = {"timing": 1}
    await client.close()
    assert client.phases == {}


def test_a_phase_lasts_until_the_next_and_within_one_that_is_held_none_shows() -> None:
    said: list[Mapping[Phase, int]] = []
    activity = Activity(said.append)
    activity.enter("building")  # No request is in this thread.
    with activity.request():
        activity.enter("checking")
        activity.enter("timing")
        other = threading.Thread(target=lambda: _one_request(activity))
        other.start()
        other.join()
        with activity.throughout("comparing"):
            activity.enter("checking")
        activity.enter("timing")
    assert said == [
        {"waiting": 1},
        {"checking": 1},
        {"timing": 1},
        {"timing": 1, "waiting": 1},
        {"timing": 1},
        {"comparing": 1},
        {"timing": 1},
        {},
    ]


def _one_request(activity: Activity) -> None:
    with activity.request():
        pass


def test_a_request_that_raises_is_in_no_phase() -> None:
    said: list[Mapping[Phase, int]] = []
    activity = Activity(said.append)
    with pytest.raises(ValueError, match="no"), activity.request(), activity.throughout("building"):
        raise ValueError("no")
    with activity.request():
        activity.enter("timing")
    assert said == [{"waiting": 1}, {"building": 1}, {}, {"waiting": 1}, {"timing": 1}, {}]
