"""`kbopt resume` and `kbopt sweep resume` with a larger budget: real processes, real Ray."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from kbopt.core.events import Ended, Evaluated, Event, Proposed, Raised
from kbopt.finish import open_run
from kbopt.reporting.comparison import compare
from kbopt.reporting.report import report_data
from kbopt.reporting.summary import summarize
from kbopt.store.journal import JournalReader
from tests.cli.test_run import SIMULATED, kbopt, start, wait_for_evaluations
from tests.cli.test_run_llm import TASK, kernel
from tests.cli.test_start import TUNED
from tests.support import quick_task, wandb_records
from tests.support.openai_server import OpenAIServer, Script
from tests.support.processes import kill_family


def events(folder: Path) -> list[Event]:
    with JournalReader(folder / "journal.sqlite") as journal:
        return [entry.event for entry in journal.entries()]


def reasons(folder: Path) -> list[str]:
    return [event.reason for event in events(folder) if isinstance(event, Ended)]


@pytest.mark.slow
def test_a_run_on_this_machines_cpu_goes_on_with_more_evaluations_and_measures_nothing_twice(
    tmp_path: Path,
) -> None:
    (tmp_path / "task.py").write_text(quick_task.TASK.source)
    (tmp_path / "mine.py").write_text(TUNED)
    folder = tmp_path / "run"
    task = ("--task", tmp_path / "task.py", "--start", tmp_path / "mine.py", "--device", "cpu")
    small = ("--num-candidates", 1, "--trials", 1, "--timed", 10, "--explorers", 1)
    first = kbopt("run", *task, *small, "--max-evals", 1, "--out", folder, "--json", timeout_s=400)
    assert first.returncode == 0, first.stderr
    before = events(folder)
    again = kbopt("resume", folder, "--max-evals", 2, "--json", timeout_s=400)
    assert again.returncode == 0, again.stderr
    assert "raised: 1 evaluation to 2 evaluations" in again.stderr
    document, after = json.loads(again.stdout), events(folder)
    assert after[: len(before)] == before
    assert document["evaluations"] == 2
    assert document["best"] is not None
    assert [one["text"] for one in document["raised"]] == ["1 evaluation to 2 evaluations"]
    assert reasons(folder) == ["the proposal was asked for", "all 2 proposals were asked for"]
    measured = Counter((e.candidate, e.repeat) for e in after if isinstance(e, Evaluated) and not e.cached)
    assert set(measured.values()) == {1}
    sources = [event.candidate.source for event in after if isinstance(event, Proposed)]
    assert len(set(sources)) == len(sources) == 2
    # The first kernel is a finalist of both ends, and the second end knows it from the cache.
    told_again = [e for e in after[len(before) :] if isinstance(e, Evaluated) and e.cached]
    assert {(e.candidate, e.is_final) for e in told_again} == {("c000001", True)}


@pytest.mark.slow
def test_steps_and_minutes_are_raised_and_report_comparison_and_table_say_when(tmp_path: Path) -> None:
    raised, other = tmp_path / "raised", tmp_path / "other"
    limits = ("--num-candidates", 2, "--num-steps", 2)
    done = kbopt("run", *SIMULATED, *limits, "--max-minutes", 9, "--out", raised)
    assert done.returncode == 0, done.stderr
    more = kbopt("resume", raised, "--num-steps", 4, "--max-minutes", 12.5)
    assert more.returncode == 0, more.stderr
    text = "2 steps to 4 steps, 9 minutes to 12.5 minutes"
    assert f"raised: {text}" in more.stderr
    assert "2 steps to 4 steps, 9 minutes to 12.5" in " ".join(more.stdout.split())
    assert reasons(raised) == ["all 4 proposals were asked for", "all 8 proposals were asked for"]
    once_more = kbopt("resume", raised)
    assert once_more.returncode == 0, once_more.stderr
    assert len(reasons(raised)) == 2

    done = kbopt("run", *SIMULATED, *limits, "--num-steps", 4, "--max-minutes", 12.5, "--out", other)
    assert done.returncode == 0, done.stderr
    summaries = []
    for folder in (raised, other):
        with open_run(folder) as run:
            summaries.append(summarize(run))
    with open_run(raised) as run:
        page = report_data([run])["runs"][0]["summary"]["raised"]
    assert [one["text"] for one in page] == [text]
    assert summaries[0].raised[0].time == pytest.approx(page[0]["time"])
    groups = compare(summaries).groups
    assert groups[0] == f"PS · 8 proposals, 12.5 min, raised from {text}"
    assert groups[1] == "PS · 8 proposals, 12.5 min"
    assert any("The budgets differ" in warning for warning in compare(summaries).warnings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "few", "more", "field"),
    [("--max-tokens", 3_000, 12_000, "tokens"), ("--max-usd", 3e-3, 12e-3, "usd")],
)
def test_tokens_and_dollars_for_models_are_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, few: float, more: float, field: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    folder = tmp_path / "run"
    answers = tuple(kernel(*[(7 * n + 3 * i) % 16 for i in range(8)]) for n in range(40))
    with OpenAIServer(Script(behaviours=answers, usd_per_token=1e-6)) as server:
        model = ("--model", "openai/scripted", "--api-base", server.url, "--explorers", 1)
        first = kbopt("run", *TASK, *model, option, few, "--num-steps", 30, "--out", folder, "--json")
        assert first.returncode == 0, first.stderr
        assert few <= json.loads(first.stdout)[field] < more
        refused = kbopt("resume", folder, option, few)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "already, and" in refused.stderr
        again = kbopt("resume", folder, option, more, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)[field] >= more
    said = ("used", "spent")[field == "usd"]
    assert [reason.split()[0] for reason in reasons(folder)] == [said, said]


@pytest.mark.slow
def test_what_cannot_be_raised_is_refused_and_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start("run", *SIMULATED, "--num-steps", 400, "--out", folder)
    wait_for_evaluations(folder, 3)
    going = kbopt("resume", folder, "--num-steps", 500)
    assert (going.returncode, going.stdout) == (2, "")
    assert "another process is writing" in going.stderr
    kill_family(process.pid)
    process.communicate(timeout=30)
    before = events(folder)
    for options, said in (
        (("--num-steps", 400), f"--num-steps 400: {folder} has 400 steps already. Give more than 400"),
        (
            ("--max-evals", 50),
            "has no such limit, so there is none to raise. Those that it has: --num-steps 400.",
        ),
        (("--max-usd", "nan"), "no finite number"),
    ):
        refused = kbopt("resume", folder, *options)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert said in refused.stderr
    assert events(folder) == before

    ended = tmp_path / "ended"
    done = kbopt("run", *SIMULATED, "--num-steps", 1, "--max-minutes", 5, "--out", ended)
    assert done.returncode == 0, done.stderr
    refused = kbopt("resume", ended, "--max-minutes", 6)
    assert refused.returncode == 2
    assert "would end again at once: all 5 proposals were asked for. Raise that limit too" in refused.stderr


@pytest.mark.slow
def test_every_search_of_a_sweep_goes_on_with_more_evaluations_and_is_logged_to_its_end(
    tmp_path: Path,
) -> None:
    searches = ("--tasks", "sim/smooth", "--algorithms", "PS,random", "--max-evals", 4)
    device = ("--backend", "simulated", "--proposer", "simulated")
    logged = ("--use-wandb", "--project-name", "p", "--wandb-mode", "offline")
    done = kbopt("sweep", *searches, *device, *logged, "--out", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    refused = kbopt("sweep", "resume", "sweep", "--out", tmp_path, "--max-evals", 4)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "has 4 evaluations already, and 4 evaluations are used. Give more than 4, in all" in refused.stderr

    more = kbopt("sweep", "resume", "sweep", "--out", tmp_path, "--max-evals", 7, *logged, "--json")
    assert more.returncode == 0, more.stderr
    assert "raised: 4 evaluations to 7 evaluations\n" in more.stderr
    assert "up to 7 evaluations each, 14 in all" in more.stderr
    assert [search["evaluations"] for search in json.loads(more.stdout)["searches"]] == [7, 7]
    for name in ("sim-smooth-PS-s0", "sim-smooth-random-s0"):
        assert [event for event in events(tmp_path / "sweep" / name) if isinstance(event, Raised)] == [
            Raised(num_steps=7, evaluations=7)
        ]
        files = sorted((tmp_path / "sweep" / name).rglob("*.wandb"), key=os.path.getmtime)
        steps = [s for path in files for s in wandb_records.history(path)]
        assert [s["evaluations"] for s in steps if "current/speedup" in s] == list(range(1, 8))
    # The command with which it was started attaches to it still, and its limits stay as they were raised.
    again = kbopt("sweep", *searches, *device, "--out", tmp_path, "--json")
    assert again.returncode == 0, again.stderr
    assert [search["evaluations"] for search in json.loads(again.stdout)["searches"]] == [7, 7]
    larger = kbopt("sweep", *searches[:-1], 9, *device, "--out", tmp_path)
    assert larger.returncode == 2
    assert "To raise a limit, give `kbopt sweep resume` with it." in larger.stderr


@pytest.mark.slow
def test_what_the_searches_of_a_sweep_share_is_raised_for_all_of_them(tmp_path: Path) -> None:
    searches = ("--tasks", "sim/smooth,sim/rugged", "--algorithms", "PS,random", "--max-evals", 6)
    device = ("--backend", "simulated", "--proposer", "simulated")
    done = kbopt("sweep", *searches, *device, "--spend", "headroom", "--out", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["evaluations"] == 24
    one = tmp_path / "sweep" / "sim-smooth-PS-s0"
    alone = kbopt("resume", one, "--max-evals", 40)
    assert alone.returncode == 2
    assert f"kbopt sweep resume {one.parent} --max-evals N" in alone.stderr

    more = kbopt("sweep", "resume", "sweep", "--out", tmp_path, "--max-evals", 9, "--json")
    assert more.returncode == 0, more.stderr
    document = json.loads(more.stdout)
    assert document["evaluations"] == 36
    assert {reasons(one)[-1]} <= {
        "the sweep's 36 evaluations are used",
        "more is expected of the sweep's other searches for all that is left",
    }
    assert (
        "what the sweep shares to 9 evaluations for each search"
        in document["searches"][0]["raised"][0]["text"]
    )
