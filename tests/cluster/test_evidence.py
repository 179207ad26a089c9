"""What a brief is told of the kernel that it is to improve."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from kbopt.cluster.evaluator import EvaluationQueue
from kbopt.cluster.evidence import Evidence
from kbopt.cluster.messages import SearchSpec
from kbopt.compose.searches import search_spec
from kbopt.config import ProposerConfig, ProposerName, RunConfig
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import Result, Seconds
from kbopt.core.outcomes import CompileFailed
from kbopt.core.profile import NotProfiled, Profiled, ProfileRequest
from kbopt.core.proposals import Brief, Candidate, Trial
from kbopt.core.protocol import EvalProtocol
from kbopt.core.settings import SearchSettings
from kbopt.core.task import Task
from kbopt.proposers.prompt import Prompts
from kbopt.simulated import SimulatedBackend
from kbopt.store.cache import EvaluationCache
from tests.core.test_bottleneck import profile
from tests.support.llm_briefs import measured

TASK = Task(name="t", source="class Model: ...")
SPEC = SearchSpec(
    name="s", folder=Path("s"), task=TASK, settings=SearchSettings(), protocol=EvalProtocol(), evidence=True
)

RESULT = Result(
    outcome=measured(2.0),
    feedback="",
    device="H200",
    protocol=SPEC.protocol.id,
    boot="b",
    seconds=Seconds(),
    device_s=0.1,
)


def trial(key: str, parent: str | None = None, result: Result | None = None) -> Trial:
    candidate = Candidate(id=key, source=f"# {key}", parent=parent, proposer="llm", memory_version=0)
    return Trial(candidate=candidate, results=(result or RESULT,))


def brief(parent: Trial | None, *exemplars: Trial) -> Brief:
    return Brief(id="b", task=TASK, parent=parent, exemplars=exemplars, summary="", seed=0, memory_version=0)


class Device:
    """Remembers what was asked; a later source is twice as fast."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def profile(self, request: ProfileRequest) -> Profiled:
        self.asked.append(request.source)
        return profile(80.0 / len(self.asked))


async def test_the_parent_is_profiled_and_compared_with_its_own() -> None:
    device = Device()
    parent, grandparent = trial("c2", parent="c1"), trial("c1")
    added = await Evidence(device.profile).added(brief(parent, grandparent), SPEC)
    assert device.asked == ["# c2", "# c1"]
    assert "Bottleneck: memory" in added.evidence
    assert "Against the parent: busy 40 us -> 80 us" in added.evidence
    prompt = Prompts.load(None).proposal(added)
    assert added.evidence in prompt


async def test_a_first_brief_is_told_of_the_device_and_the_reference() -> None:
    device = Device()
    added = await Evidence(device.profile).added(brief(None), SPEC)
    assert device.asked == [TASK.equal_code]
    assert "NVIDIA H200: 132 multiprocessors" in added.evidence
    assert "The reference's call: 80 us busy" in added.evidence
    assert added.evidence in Prompts.load(None).proposal(added)


async def test_nobody_is_asked_where_it_is_not_wanted_or_of_no_use() -> None:
    device = Device()
    evidence = Evidence(device.profile)
    failed = replace(RESULT, outcome=CompileFailed(reason="no"))
    assert (await evidence.added(brief(trial("c1")), replace(SPEC, evidence=False))).evidence == ""
    assert (await evidence.added(replace(brief(trial("c1")), action="refine"), SPEC)).evidence == ""
    assert (await evidence.added(brief(trial("c1", result=failed)), SPEC)).evidence == ""
    assert device.asked == []


@pytest.mark.parametrize("error", [UserError("no profiles"), InfraError("lost")])
async def test_a_brief_is_answered_without_evidence_that_cannot_be_had(error: Exception) -> None:
    async def fails(request: ProfileRequest) -> Profiled:
        raise error

    async def hangs(request: ProfileRequest) -> Profiled:
        await asyncio.Event().wait()
        raise AssertionError

    async def refuses(request: ProfileRequest) -> Profiled:
        return NotProfiled(reason="it does not run")

    for ask in (fails, hangs, refuses):
        added = await Evidence(ask, patience_s=0.05).added(brief(trial("c1")), SPEC)
        assert added == brief(trial("c1"))


class Profiling(SimulatedBackend):
    """Counts how often it is asked, and how many at once; the first time it fails."""

    def __init__(self, max_in_flight: int) -> None:
        super().__init__()
        self.max_in_flight = max_in_flight
        self.asked = self.now = self.most = 0

    async def profile(self, request: ProfileRequest) -> Profiled:
        self.asked += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.01)
        self.now -= 1
        if self.asked == 1:
            raise InfraError("lost")
        return NotProfiled(reason=request.source)


@pytest.mark.parametrize(("max_in_flight", "at_once"), [(1, 1), (16, 4), (1000, 20)])
async def test_the_evaluator_asks_once_for_a_source_and_for_a_few_at_once(
    tmp_path: Path, max_in_flight: int, at_once: int
) -> None:
    backend = Profiling(max_in_flight)
    queue = EvaluationQueue(backend, EvaluationCache(tmp_path / "evaluations.sqlite"))

    def ask(source: str) -> Awaitable[Profiled]:
        return queue.profile(ProfileRequest(task=TASK, source=source, protocol=SPEC.protocol))

    with pytest.raises(InfraError):
        await ask("a")
    assert await ask("a") == await ask("a") == NotProfiled(reason="a")
    assert backend.asked == 2
    await asyncio.gather(*(ask(str(number % 20)) for number in range(60)))
    assert backend.asked == 22
    assert backend.most == at_once
    await queue.close()


@pytest.mark.parametrize("name", get_args(ProposerName))
def test_whoever_asks_models_shows_them_profiles(name: ProposerName, tmp_path: Path) -> None:
    config = RunConfig(name="r", task=TASK, proposer=ProposerConfig(name=name))
    assert search_spec(config, tmp_path).evidence == ("llm" in name)
    without = replace(config, proposer=replace(config.proposer, evidence=False))
    assert not search_spec(without, tmp_path).evidence
