"""What a sweep's searches are called, what they share, and what is refused before anything is made."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from kbopt.cli.options.backend import backend_options
from kbopt.cli.parsed import backend_config, seed_numbers
from kbopt.compose.backends import device_facts
from kbopt.compose.checks import check, check_device
from kbopt.compose.lessons import with_lessons
from kbopt.compose.proposers import lease_s
from kbopt.config import BackendConfig, ProposerConfig, RunConfig, device_kind
from kbopt.core.errors import UserError
from kbopt.core.events import Evaluated, Event
from kbopt.core.task import Task
from kbopt.simulated import landscape
from kbopt.store.journal import JournalReader
from kbopt.sweep import SweepConfig, fingerprint, prepare
from kbopt.tasks import load_task
from tests.cli.test_sweep import SIMULATED, kbopt
from tests.support.unwritable import unwritable


def config(*tasks: Task, seeds: tuple[int, ...] = (0,)) -> SweepConfig:
    return SweepConfig(
        name="s",
        tasks=tasks,
        algorithms=("PS",),
        seeds=seeds,
        backend=BackendConfig(name="simulated"),
        proposer=ProposerConfig(name="simulated"),
    )


def names(*tasks: Task, seeds: tuple[int, ...] = (0,)) -> list[str]:
    return [run.name for run in config(*tasks, seeds=seeds).runs()]


def test_task_files_of_one_name_get_searches_of_their_own() -> None:
    one, two = Task(name="a/act.py", source="1"), Task(name="b/act.py", source="2")
    assert names(one) == ["act-PS-s0"]
    assert names(one, two) == ["a-act-PS-s0", "b-act-PS-s0"]
    assert len(set(names(one, Task(name="a-act.py", source="3"), two, Task(name="a/act", source="4")))) == 4


def test_what_is_named_twice_runs_once() -> None:
    task = landscape("sim/smooth").task
    assert names(task, task, seeds=(3, 3)) == ["sim-smooth-PS-s3"]


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", (0, 1, 2)), ("1..3", (1, 2, 3)), ("7,3", (7, 3)), ("3, 3,3", (3,))]
)
def test_seeds_are_so_many_a_range_or_a_list(text: str, seeds: tuple[int, ...]) -> None:
    assert seed_numbers(text) == seeds


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "3,-1", "-2..2", "3..1", "a", "1.5", "99999999999", "0..1000"]
)
def test_other_seeds_are_told_what_they_may_be(text: str) -> None:
    with pytest.raises(UserError, match=r"give how many \(5\), .* of up to 1000 numbers from 0 on"):
        seed_numbers(text)


def test_a_sweep_of_another_folder_is_another_sweep(tmp_path: Path) -> None:
    sweep = config(landscape("sim/smooth").task)
    assert fingerprint(sweep, tmp_path / "a") == fingerprint(sweep, tmp_path / "b" / ".." / "a")
    assert fingerprint(sweep, tmp_path / "a") != fingerprint(sweep, tmp_path / "b")


def test_a_folder_that_cannot_be_made_is_answered_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot make .*file/s.*--out"):
        prepare(config(landscape("sim/smooth").task), tmp_path / "file" / "s")


def test_each_search_of_a_sweep_keeps_the_lessons_that_it_began_with(tmp_path: Path) -> None:
    library = tmp_path / "lessons.toml"
    library.write_text('[[lesson]]\nfamily = "simulated"\ntext = "Tile."\n')
    sweep = config(landscape("sim/smooth").task)
    sweep = replace(sweep, proposer=replace(sweep.proposer, library=str(library)))
    (first,) = prepare(sweep, tmp_path / "s")
    library.write_text("")
    (again,) = prepare(sweep, tmp_path / "s")
    assert first.lessons == again.lessons == "- [simulated] Tile."


def test_a_library_that_cannot_be_read_or_made_ends_the_run_before_it_starts(tmp_path: Path) -> None:
    run = next(config(landscape("sim/smooth").task).runs())
    for library, message in (
        (tmp_path / "no" / "l.toml", "there is no folder"),
        (tmp_path, "cannot be used"),
    ):
        with pytest.raises(UserError, match=message):
            with_lessons(replace(run, proposer=replace(run.proposer, library=str(library))))
    with unwritable(tmp_path), pytest.raises(UserError, match=r"may not be written to.*--no-library"):
        with_lessons(replace(run, proposer=replace(run.proposer, library=str(tmp_path / "l.toml"))))


@pytest.mark.parametrize(
    ("task", "backend", "proposer", "message"),
    [
        ("quick/gelu", BackendConfig(device="tpu"), "tunables", "there is auto, cpu, cuda"),
        ("quick/gelu", BackendConfig(device="cuda:x"), "tunables", "there is auto, cpu, cuda"),
        ("quick/gelu", BackendConfig(device="cpu"), "simulated", "do not go together"),
        ("quick/gelu", BackendConfig(name="simulated"), "tunables", "do not go together"),
        ("sim/smooth", BackendConfig(device="cpu"), "simulated", "do not go together"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_made(
    task: str, backend: BackendConfig, proposer: str, message: str, tmp_path: Path
) -> None:
    from kbopt import driver

    made = landscape(task).task if task.startswith("sim/") else load_task(task)
    run = RunConfig(name="r", task=made, backend=backend, proposer=ProposerConfig(name=proposer))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        driver.create(run, tmp_path / "r")
    assert not (tmp_path / "r").exists()
    with pytest.raises(UserError, match=message):
        check(run, on_this_machine=False)


def test_a_driver_without_a_torch_for_cuda_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: str(self) == "/dev/nvidiactl" or real(self))
    monkeypatch.setattr("kbopt.config.runpy.run_path", lambda _: {"cuda": None})
    assert device_kind(BackendConfig()) == "cpu"
    assert "cores of" in device_facts(BackendConfig())
    with pytest.raises(UserError, match="built without CUDA"):
        check_device("cuda")
    check_device("cuda", on_this_machine=False)
    monkeypatch.setattr("kbopt.config.runpy.run_path", lambda _: {"cuda": "12.8"})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device_kind(BackendConfig()) == "cuda"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device_kind(BackendConfig()) == "cpu"


@click.command()
@backend_options
def told(**given: Any) -> None:
    """What a model is told of the device that the options name."""
    click.echo(device_facts(backend_config(given)))


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        ("--backend spool --gpu H200", "One NVIDIA H200."),
        ("--backend spool", "One NVIDIA GPU."),
        ("--backend spool --device cpu --gpu H200", "The cores of another machine."),
        ("--backend modal", "One NVIDIA L40S."),
    ],
)
def test_models_are_told_of_the_gpu_that_is_named_and_of_no_other(words: str, facts: str) -> None:
    assert CliRunner().invoke(told, words.split()).output == f"{facts}\n"


@pytest.mark.parametrize(
    ("proposer", "least_s"),
    [
        (ProposerConfig(name="llm"), 3 * 2 * 300.0),
        (ProposerConfig(name="llm+tunables", timeout_s=3600.0), 3 * 2 * 3600.0),
        (ProposerConfig(name="agent", agent="codex", agent_minutes=90.0), 90 * 60.0),
    ],
)
def test_a_brief_is_not_handed_out_again_while_its_model_may_still_answer(
    proposer: ProposerConfig, least_s: float
) -> None:
    """A model is asked up to three times for a brief, and may let each question time out twice."""
    assert least_s < lease_s(proposer) <= least_s + 300.0


def journal_events(path: Path) -> list[Event]:
    with JournalReader(path) as journal:
        return [entry.event for entry in journal.entries()]


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
def test_seeds_measure_for_themselves_unless_they_are_told_to_share(shared: bool, tmp_path: Path) -> None:
    searches = ("--tasks", "sim/smooth", "--algorithms", "PS,best_of_n", "--max-evals", 4, "--seeds", 2)
    options = ("--share-results",) if shared else ()
    done = kbopt(
        "sweep", *searches, *SIMULATED, *options, "--parallel-searches", 1, "--out", tmp_path, "--json"
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["shared_results"] is shared
    cached = [
        event.cached
        for search in document["searches"]
        for event in journal_events(Path(search["journal"]))
        if isinstance(event, Evaluated)
    ]
    assert any(cached) is shared
    table = kbopt("sweep", "results", "sweep", "--out", tmp_path).stdout
    assert ("Results were shared" in table) is shared


@pytest.mark.slow
def test_a_sweep_that_shares_evaluations_and_dollars_ends_with_what_was_shared(tmp_path: Path) -> None:
    searches = ("--tasks", "sim/smooth,sim/rugged", "--seeds", 1, "--spend", "headroom")
    done = kbopt(
        "sweep", *searches, *SIMULATED, "--max-usd", 1, "--max-evals", 14, "--out", tmp_path, "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["evaluations"] == 28
    assert "28 in all, at most 2.00 dollars in all" in done.stderr
    refused = kbopt("sweep", *searches, *SIMULATED, "--out", tmp_path / "other")
    assert refused.returncode == 2
    assert "give --max-evals N, --max-usd D, or both" in " ".join(refused.stderr.split())
