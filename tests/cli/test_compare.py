"""`kbopt compare` on what other commands leave, and on what none of them made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kbopt.cli import app
from kbopt.config import RunConfig
from kbopt.core import codec
from kbopt.core.errors import UserError
from kbopt.store.journal import SqliteJournal
from kbopt.sweep import SweepConfig
from kbopt.tasks import load_task
from tests.support import journals

LINE = {
    "protocol": "strict-4/fp32",
    "device": "H100",
    "torch": "2.9",
    "speedup": None,
    "speedup_ci": None,
    "speedups": [],
    "reason": None,
    "family": None,
    "kernelbench": None,
}


def write_audit(folder: Path, *outcomes: str, **more: Any) -> Path:
    folder.mkdir(parents=True)
    lines = []
    for number, outcome in enumerate(outcomes):
        line = {**LINE, "key": f"{number:016}", "task": "t", "candidate": f"k{number}", "outcome": outcome}
        if outcome == "measured":
            line |= {"speedup": 2.0, "speedup_ci": [1.9, 2.1]}
        lines.append(json.dumps(line | more))
    (folder / "results.jsonl").write_text("\n".join(lines) + "\n{torn")
    return folder


def compare(*words: object) -> str:
    done = CliRunner().invoke(app, ["compare", *map(str, words)], catch_exceptions=False, terminal_width=200)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_two_audits_of_one_set_say_how_many_verdicts_are_the_same(tmp_path: Path) -> None:
    first = write_audit(tmp_path / "monday", "measured", "wrong_answer", "measured")
    second = write_audit(tmp_path / "tuesday", "measured", "wrong_answer", "rejected", family="torch_ops")
    text = " ".join(compare(first, second).split())
    assert "tuesday against monday: 3 tasks in common, the same verdict for" in text
    found = json.loads(compare(first, second / "results.jsonl", "--json"))
    (against,) = found["against"]
    assert (against["common"], against["both_correct"]) == (3, 1)
    assert {one["task"]: one["second"] for one in against["differing"]}["k2"] == "rejected torch_ops"
    assert found["settings"] == []


def test_devices_that_differ_are_a_warning(tmp_path: Path) -> None:
    first = write_audit(tmp_path / "a", "measured")
    second = write_audit(tmp_path / "b", "measured", device="L40S")
    (warning,) = json.loads(compare(first, second, "--json"))["warnings"]
    assert "different devices (H100; L40S)" in warning


def write_run(folder: Path, num_candidates: int, *, seed: int = 0, **settings: Any) -> Path:
    task = load_task("quick/gelu")
    config = RunConfig(name=folder.name, task=task, settings=journals.settings(seed=seed, **settings))
    with SqliteJournal.create(folder / "journal.sqlite", codec.dumps(config)) as journal:
        for entry in journals.entries(num_candidates, seed=seed):
            journal.append(entry.event)
    return folder


def test_runs_stand_side_by_side_with_the_budget_that_differs(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", 12)
    two = write_run(tmp_path / "two", 30, seed=1, evaluations=70)
    found = json.loads(compare(one, two, "--json"))
    assert [(side["name"], side["kind"]) for side in found["sides"]] == [("one", "run"), ("two", "run")]
    assert [setting["name"] for setting in found["settings"]] == ["budget"]
    assert "The budgets differ (25 proposals, 50 evaluations; 25 proposals, 70" in found["warnings"][0]
    (against,) = found["against"]
    speedups = [side["board"]["lines"][0]["geomean"]["mean"] for side in found["sides"]]
    assert against["ratio"]["mean"] == pytest.approx(speedups[1] / speedups[0])


def test_an_audit_beside_a_run_has_unknown_settings_and_not_the_same(tmp_path: Path) -> None:
    run, audit = write_run(tmp_path / "run", 12), write_audit(tmp_path / "audit", "measured")
    text = compare(run, audit)
    assert "The settings are the same." not in text
    settings = {one["name"]: one["values"] for one in json.loads(compare(run, audit, "--json"))["settings"]}
    assert settings["algorithm"][1] == settings["budget"][1] == "?"


def test_a_sweep_has_a_side_for_each_algorithm(tmp_path: Path) -> None:
    config = SweepConfig(
        name="both",
        tasks=(load_task("quick/gelu"),),
        algorithms=("PS", "random"),
        seeds=(0, 1),
        settings=journals.settings(),
    )
    (tmp_path / "sweep.json").write_text(codec.dumps(config))
    for run in config.runs():
        with SqliteJournal.create(tmp_path / run.name / "journal.sqlite", codec.dumps(run)) as journal:
            for entry in journals.entries(8, seed=run.settings.seed):
                journal.append(entry.event)
    found = json.loads(compare(tmp_path, "--json"))
    assert [(side["name"].split()[-1], side["board"]["num_seeds"]) for side in found["sides"]] == [
        ("PS", 2),
        ("random", 2),
    ]
    assert found["against"][0]["ratio"]["mean"] == 1.0


@pytest.mark.parametrize("name", ["nothing", "page.html", "empty"])
def test_what_is_none_of_these_is_refused(tmp_path: Path, name: str) -> None:
    good = write_audit(tmp_path / "good", "measured")
    (tmp_path / "empty").mkdir()
    (tmp_path / "page.html").write_text("<p>")
    with pytest.raises(UserError, match=r"there is no|is no run, sweep, benchmark or audit"):
        compare(good, tmp_path / name)


def test_one_side_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is one side alone"):
        compare(write_audit(tmp_path / "a", "measured"))
