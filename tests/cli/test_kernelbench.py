"""`kbopt bench kernelbench` as its help text says: the real command, search, judge and table on the CPU."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner

from kbopt import bench
from kbopt.bench import BenchConfig, Optimizer
from kbopt.cli.kernelbench import kernelbench
from kbopt.cluster.messages import Failure
from kbopt.core import codec
from kbopt.core.errors import UserError
from kbopt.core.events import Evaluated
from kbopt.finish import finish
from kbopt.reporting.scoreboard import row_of
from kbopt.store.journal import SqliteJournal
from kbopt.sweep import SweepConfig
from kbopt.tasks import load_task
from tests.cli.test_sweep import kbopt
from tests.docs.examples import ROOT
from tests.reporting import conftest as browsers
from tests.support import journals
from tests.support.compilers import needs_extensions

EXAMPLE = ROOT / "experiments" / "kernelbench"


chromium, watched = browsers.chromium, browsers.watched

real = [
    needs_extensions,  # torch.compile is one of the baselines
    pytest.mark.slow,
    pytest.mark.timeout(400),
]


def marked(test: Callable[..., None]) -> Callable[..., None]:
    for mark in real:
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """The benchmark of two tasks, of which one has no seed kernel; its folder is the last word."""
    where = ("--kernelbench", EXAMPLE, "--subset", "level1/23,level2/33", "--device", "cpu", "--seeds", 1)
    quick = ("--max-evals", 1, "--trials", 1, "--timed", 10)
    return ("bench", "kernelbench", *where, *quick, "--out", tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def first(command: tuple[object, ...]) -> subprocess.CompletedProcess[str]:
    return kbopt(*command, timeout_s=350)


@marked
def test_from_nothing_to_a_table_that_the_same_command_only_reads(
    command: tuple[object, ...], first: subprocess.CompletedProcess[str]
) -> None:
    folder = Path(str(command[-1])) / "kernelbench"
    assert first.returncode == 0, first.stderr
    assert "no --model: kbopt's own seed kernels" in first.stderr
    assert "1 of 2 tasks have none and count as unsolved" in first.stderr
    correct = [line.split() for line in first.stdout.splitlines() if line.startswith(" correct")]
    assert [cells[1] for cells in correct] == [
        "100%",
        "0%",
        "50%",
    ]  # level 1, level 2, which has no seed; all
    again = kbopt(*command, "--json")
    assert again.returncode == 0, again.stderr
    assert "every search is over: nothing is run again" in again.stderr
    document = json.loads(again.stdout)
    assert [board["name"] for board in document["boards"]] == ["level 1", "level 2", "all tasks"]
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [(row["task"], row["fate"]) for row in rows] == [
        ("level1/23", "correct"),
        ("level2/33", "no seed"),
    ]
    assert rows[0]["over"].keys() >= {"eager", "compile"}
    assert 0 < rows[0]["roofline"] <= 1
    assert (folder / rows[0]["page"]).is_file()


@marked
@pytest.mark.browser
def test_its_page_opens_each_search_with_its_kernel(
    command: tuple[object, ...], first: subprocess.CompletedProcess[str], watched: browsers.Watched
) -> None:
    scoreboard = Path(str(command[-1])) / "kernelbench" / "scoreboard.html"
    assert str(scoreboard) in first.stderr
    page = watched.open(scoreboard.as_uri())
    assert "1 with a correct kernel, 1 without a seed kernel" in page.locator("#overview").inner_text()
    assert page.locator("#results h3").all_inner_texts() == ["level 1", "level 2", "all tasks"]
    shares = page.locator("#results table").last.locator("tbody tr")
    assert shares.first.locator("td").all_inner_texts()[:2] == ["correct", "50 %"]
    assert page.locator("#searches tbody tr:not(.under)").count() == 2
    page.get_by_role("button", name="no seed (1)").click()
    assert page.locator("#searches tbody tr:not(.under)").count() == 1
    page.get_by_role("button", name="all", exact=True).click()
    page.get_by_role("button", name="level1/23").click()
    dialog = page.locator("dialog")
    assert "class ModelNew" in dialog.inner_text()
    assert "\u00d7 [" in dialog.inner_text()
    dialog.get_by_role("tab", name="Feedback").click()
    assert "Correct" in dialog.inner_text()
    dialog.get_by_role("tab", name="Reproduce").click()
    assert "kbopt eval --run" in dialog.inner_text()
    target = dialog.get_by_role("link").get_attribute("href")
    assert target
    assert (scoreboard.parent / target).is_file()
    dialog.get_by_role("button", name="next →").click()
    assert "There is none." in dialog.inner_text()
    dialog.get_by_role("button", name="close").click()
    page.set_viewport_size({"width": 400, "height": 800})
    boxes = "[document.documentElement, ...document.querySelectorAll('.scroll')]"
    for _ in ("light", "dark"):
        page.wait_for_function(f"() => {boxes}.every((box) => box.scrollWidth <= box.clientWidth)")
        page.locator("#theme").click()
    assert watched.errors == []
    assert watched.requests == [page.url]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--subset", "representative", "--levels", "3"), "has no problem of level 3"),
        (("--levels", "9"), "there is no level '9'"),
        (("--optimizer", "gepa"), "--optimizer gepa needs --model"),
        (("--model", "openai/gpt-5", "--proposer", "tunables"), "do not go together"),
        (("--baseline", "compile"), "the table has every baseline: leave --baseline compile"),
        (("--optimizer", "gepo"), "Did you mean gepa?"),
        (("--name", "../there"), "'../there' is no name"),
        (("--model", "openai/gpt-5", "--subset", "level1/23"), "OPENAI_API_KEY"),
    ],
)
def test_what_cannot_be_run_is_refused_before_a_folder_is_made(
    options: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    arguments = ["--kernelbench", str(EXAMPLE), "--out", str(tmp_path), *options]
    done = CliRunner().invoke(kernelbench, arguments)
    assert message in f"{done.output}{done.exception}"
    assert list(tmp_path.iterdir()) == []


def test_the_option_names_the_optimizers_that_there_are() -> None:
    (option,) = [param for param in kernelbench.params if param.name == "optimizer"]
    assert option.type.allowed == get_args(Optimizer)  # type: ignore[attr-defined]


def benchmark(*seeds: int) -> BenchConfig:
    searches = SweepConfig(
        name="b",
        tasks=(load_task("level1/23", kernelbench=EXAMPLE),),
        algorithms=("PS",),
        seeds=seeds,
        settings=journals.settings(),
    )
    return BenchConfig(
        optimizer="kbopt",
        subset="representative",
        levels=(1,),
        searches=searches,
        unseeded=(load_task("level2/33", kernelbench=EXAMPLE),),
        versions={"torch": "2"},
    )


def test_money_is_spread_in_equal_parts() -> None:
    assert bench.divided(10.0, 4) == 2.5
    assert bench.divided(None, 4) is None
    assert bench.divided(10.0, 0) is None


def test_a_task_without_a_seed_kernel_is_one_only_where_nobody_else_could_write_one() -> None:
    config = benchmark(0)
    tasks = (*config.searches.tasks, *config.unseeded)
    assert bench.unseeded(tasks, config.searches) == config.unseeded
    with_model = replace(config.searches, proposer=replace(config.searches.proposer, name="llm"))
    assert bench.unseeded(tasks, with_model) == ()


def test_a_folder_goes_on_with_the_same_benchmark_alone(tmp_path: Path) -> None:
    bench.prepare(benchmark(0), tmp_path)
    bench.prepare(benchmark(0), tmp_path)
    with pytest.raises(
        UserError, match=r"other settings .searches\..*; versions: .* there, {.torch.: .3.} now"
    ):
        bench.prepare(replace(benchmark(1), versions={"torch": "3"}), tmp_path)


def test_what_became_of_each_search_is_read_from_its_journal(tmp_path: Path) -> None:
    config = benchmark(0, 1, 2, 3)
    refusal = Failure(kind="user", message="admission test 'zeros' failed: it is zero")
    failures = {"level1-23-PS-s2": refusal, "level1-23-PS-s3": Failure(kind="infra", message="it is lost")}
    for run in config.searches.runs():
        seed = run.settings.seed
        entries = list(journals.entries(8, seed=seed))
        if seed == 1:
            entries = entries[:-1]
        if seed >= 2:  # the first kernel was proposed, and no result came
            entries = list(itertools.takewhile(lambda one: not isinstance(one.event, Evaluated), entries))
        with SqliteJournal.create(tmp_path / run.name / "journal.sqlite", codec.dumps(run)) as journal:
            for entry in entries:
                journal.append(entry.event)
    bench.prepare(config, tmp_path)
    rows = bench.collect(config, tmp_path, failures)
    bench.write(config, tmp_path, rows)
    assert [(row.task, row.seed, row.fate) for row in rows] == [
        ("level1/23", 0, "correct"),
        ("level1/23", 1, "unfinished"),
        ("level1/23", 2, "refused"),
        ("level1/23", 3, "unfinished"),
        *(("level2/33", seed, "no seed") for seed in range(4)),
    ]
    assert rows[2].reason == refusal.message
    assert {row.page for row in rows[:4]} == {"tasks/level1-23-PS.html"}
    assert (tmp_path / "tasks" / "level1-23-PS.html").is_file()
    assert bench.rows_of(tmp_path) == rows
    assert bench.refused(config, tmp_path) == {"level1-23-PS-s2": refusal}
    assert [bench.has_ended(tmp_path / run.name) for run in config.searches.runs()] == [True, *[False] * 3]


def test_a_kernel_in_which_the_last_evaluation_finds_a_fault_is_not_correct(tmp_path: Path) -> None:
    run = next(benchmark(0).searches.runs())
    with SqliteJournal.create(tmp_path / "journal.sqlite", codec.dumps(run)) as journal:
        for entry in journals.entries(8):
            journal.append(entry.event)
    summary = finish(tmp_path).summary
    assert summary.best is not None
    sound = row_of(summary, "t", page="")
    faulty = replace(summary, best=replace(summary.best, final_fault="wrong_answer: on what was held out"))
    row = row_of(faulty, "t", page="")
    assert (sound.fate, sound.over["eager"]) == ("correct", summary.best.speedup)
    assert (row.fate, row.over, row.reason) == ("unsolved", {}, "wrong_answer: on what was held out")
