"""Weights & Biases in offline mode, read back from the file that it wrote."""

from __future__ import annotations

import json
import logging
import socket
from pathlib import Path

import pytest

from kbopt.reporting.dashboard import specification
from kbopt.reporting.run import Run
from kbopt.reporting.summary import RunSummary, summarize
from kbopt.reporting.wandb_log import WandbLog, WandbSettings
from tests.reporting.conftest import MakeRun
from tests.support import wandb_records


@pytest.fixture(scope="module")
def logged(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunSummary]:
    folder = tmp_path_factory.mktemp("wandb")
    (folder / "best.py").write_text("class ModelNew: ...\n")
    (folder / "report.html").write_text("<!doctype html>")
    run = make_run(30, name="gelu-0")
    log = WandbLog(
        run,
        WandbSettings(project="kernels", directory=folder, group="a-sweep", gpu="L40S", mode="offline"),
    )
    for entry in run.entries:
        log.entry(entry)
    log.figures({"fast_p/1.0": 0.75})
    assert log.close(kernel=folder / "best.py", report=folder / "report.html")
    (path,) = folder.rglob("*.wandb")
    wandb_records.wait_for_the_end(path)
    return path, summarize(run)


def test_a_search_is_one_run_grouped_by_its_sweep_and_tagged(logged: tuple[Path, RunSummary]):
    (run,) = [record.run for record in wandb_records.records(logged[0]) if record.HasField("run")][:1]
    assert (run.project, run.display_name, run.run_group) == ("kernels", "gelu-0", "a-sweep")
    assert list(run.tags) == ["quick/gelu", "PS_epsNet_Summarizer", "seed-0", "L40S"]


def test_every_evaluation_is_a_step_with_the_journals_figures(logged: tuple[Path, RunSummary]):
    path, summary = logged
    steps = [step for step in wandb_records.history(path) if "current/speedup" in step]
    assert [step["evaluations"] for step in steps] == list(range(1, summary.evaluations + 1))
    last = steps[-1]
    assert last["best/speedup"] == pytest.approx(summary.best.speedup)
    assert last["outcomes/measured"] == summary.by_outcome["measured"]
    assert last["tokens"] <= summary.tokens


def test_the_figures_of_the_sweep_are_logged(logged: tuple[Path, RunSummary]):
    assert [s["fast_p/1.0"] for s in wandb_records.history(logged[0]) if "fast_p/1.0" in s] == [0.75]


def test_the_candidates_are_a_table(logged: tuple[Path, RunSummary]):
    path, summary = logged
    (file,) = path.parent.rglob("*.table.json")
    table = json.loads(file.read_text())
    assert len(table["data"]) == summary.candidates
    assert table["columns"][:4] == ["candidate", "parent", "outcome", "speedup"]


def test_the_best_kernel_and_the_report_are_artifacts(logged: tuple[Path, RunSummary]):
    artifacts = [
        record.request.log_artifact.artifact if record.HasField("request") else record.artifact
        for record in wandb_records.records(logged[0])
        if record.HasField("artifact")
        or (record.HasField("request") and record.request.HasField("log_artifact"))
    ]
    assert {"kernel", "report"} <= {artifact.type for artifact in artifacts}


def session(run: Run, directory: Path, num_entries: int) -> Path:
    """Log the first entries of `run` in one session; the result is the file that W&B wrote."""
    before = set(directory.rglob("*.wandb"))
    log = WandbLog(run, WandbSettings(project="p", directory=directory, mode="offline"))
    for entry in run.entries[:num_entries]:
        log.entry(entry)
    assert log.close()
    (path,) = set(directory.rglob("*.wandb")) - before
    wandb_records.wait_for_the_end(path)
    return path


def evaluations(path: Path) -> list[float]:
    return [step["evaluations"] for step in wandb_records.history(path) if "current/speedup" in step]


def run_id(path: Path) -> str:
    return next(record.run.run_id for record in wandb_records.records(path) if record.HasField("run"))


def test_a_later_session_goes_on_with_the_run_and_logs_only_what_is_new(make_run: MakeRun, tmp_path: Path):
    run = make_run(30, name="gelu")
    first, second = session(run, tmp_path, 60), session(run, tmp_path, len(run.entries))
    assert run_id(first) == run_id(second)
    total = summarize(run).evaluations
    assert evaluations(first) + evaluations(second) == list(range(1, total + 1))
    assert min(len(evaluations(first)), len(evaluations(second))) > 3
    assert wandb_records.history(second)[-1]["evaluations"] == total


def test_folders_of_one_name_are_other_runs(make_run: MakeRun, tmp_path: Path):
    run = make_run(2, name="gelu")
    assert run_id(session(run, tmp_path / "a" / "gelu", 5)) != run_id(
        session(run, tmp_path / "b" / "gelu", 5)
    )


def test_a_server_that_is_not_there_ends_the_logging_and_nothing_else(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    run = make_run(5)
    settings = WandbSettings(project="kernels", directory=tmp_path, init_timeout_s=3.0)
    with caplog.at_level(logging.WARNING, logger="kbopt.reporting.wandb_log"):
        log = WandbLog(run, settings)
        for entry in run.entries:
            log.entry(entry)
        assert not log.close(timeout_s=60)
    assert log.failed
    assert [record.name for record in caplog.records].count("kbopt.reporting.wandb_log") == 1


def test_a_folder_that_cannot_be_written_ends_the_logging_and_nothing_else(make_run: MakeRun, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    log = WandbLog(make_run(1), WandbSettings(project="p", directory=tmp_path / "file", mode="offline"))
    assert not log.close(timeout_s=30)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # at the import of wandb-workspaces 0.4
def test_the_dashboard_can_be_printed_without_a_network():
    spec = json.loads(specification("kernels", "a-team"))
    sections = spec["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == ["Best so far", "fast_p", "Cost", "Evaluator"]
    text = json.dumps(spec)
    assert "best/speedup" in text
    assert "fast_p/1.05" in text
