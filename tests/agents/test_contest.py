"""GEPA and OpenEvolve themselves as searches of a benchmark, with a scripted model over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kbopt.adapters.contest import compete
from kbopt.bench import BenchConfig, collect, prepare, write
from kbopt.config import BackendConfig, ProposerConfig
from kbopt.core.events import Ended, Evaluated, Proposed, RemeasureAsked
from kbopt.core.settings import Budget, SearchSettings
from kbopt.finish import open_run
from kbopt.reporting.summary import summarize
from kbopt.simulated import landscape
from kbopt.simulated.kernels import to_source
from kbopt.store.journal import JournalReader
from kbopt.sweep import SweepConfig
from tests.support.openai_server import Answer, OpenAIServer, Script

pytestmark = pytest.mark.slow


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    """Answers with one kernel after another, the last and best one again and again."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    texts = [f"Try this.\n\n```python\n{to_source((level,) * 8)}```\n" for level in (3, 9, 12)]
    script = Script(behaviours=tuple(Answer(text=text) for text in texts), usd_per_token=0.001)
    with OpenAIServer(script) as running:
        yield running


def searches(server: OpenAIServer, **budget: float) -> SweepConfig:
    return SweepConfig(
        name="bench",
        tasks=(landscape("sim/smooth").task,),
        algorithms=("best_of_n",),
        seeds=(0,),
        settings=SearchSettings(num_steps=3, budget=Budget(**budget)),  # type: ignore[arg-type]
        backend=BackendConfig(name="simulated", simulated_s=0.001),
        proposer=ProposerConfig(name="llm", models="openai/scripted", api_base=server.url),
    )


@pytest.mark.parametrize("name", ["gepa", "openevolve"])
def test_an_optimizers_kernels_are_a_run_with_its_costs_and_its_last_measurements(
    name: str, server: OpenAIServer, tmp_path: Path
) -> None:
    asked = searches(server, evaluations=3)
    config = BenchConfig(optimizer=name, subset="sim", levels=(1,), searches=asked, versions={})  # type: ignore[arg-type]
    prepare(config, tmp_path)
    assert compete(name, asked, tmp_path, lambda _: None) == {}
    (row,) = rows = collect(config, tmp_path, {})
    write(config, tmp_path, rows)
    with JournalReader(tmp_path / "sim-smooth-best_of_n-s0" / "journal.sqlite") as journal:
        events = [entry.event for entry in journal.entries()]
    proposed = [event.candidate for event in events if isinstance(event, Proposed)]
    assert {candidate.proposer for candidate in proposed} == {name}
    first = [e for e in events if isinstance(e, Evaluated) and not e.repeat and not e.cached]
    assert 2 <= len(first) <= 3
    assert any(isinstance(event, RemeasureAsked) for event in events)
    assert isinstance(events[-1], Ended) or any(isinstance(event, Ended) for event in events)
    assert (row.fate, row.seed) == ("correct", 0)
    assert row.over["eager"] > 1.0
    with open_run(tmp_path / "sim-smooth-best_of_n-s0") as run:
        assert summarize(run).algorithm == name
    assert row.tokens == sum(u.prompt_tokens + u.completion_tokens for c in proposed for u in c.usage) > 0
    assert row.usd == pytest.approx(row.tokens * 0.001)
    assert json.loads((tmp_path / "results.json").read_text())["optimizer"] == name
    before = len(server.requests)
    assert compete(name, asked, tmp_path, lambda _: None) == {}
    assert len(server.requests) == before  # what has ended is not run again


def test_a_budget_in_dollars_ends_the_search(server: OpenAIServer, tmp_path: Path) -> None:
    asked = searches(server, evaluations=50, usd=0.000001)
    assert compete("gepa", asked, tmp_path, lambda _: None) == {}
    with JournalReader(tmp_path / "sim-smooth-best_of_n-s0" / "journal.sqlite") as journal:
        events = [entry.event for entry in journal.entries()]
    assert next(event.reason for event in events if isinstance(event, Ended)).startswith("spent ")
    assert len([event for event in events if isinstance(event, Proposed)]) == 2


def test_a_search_that_was_cut_off_begins_anew_and_keeps_its_folder(
    server: OpenAIServer, tmp_path: Path
) -> None:
    asked = searches(server, evaluations=2)
    cut = tmp_path / "sim-smooth-best_of_n-s0"
    cut.mkdir()
    (cut / "note").write_text("mine")
    assert compete("gepa", asked, tmp_path, lambda _: None) == {}
    assert (tmp_path / "sim-smooth-best_of_n-s0.cut-off" / "note").read_text() == "mine"
    assert (cut / "report.html").exists()
