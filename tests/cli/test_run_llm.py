"""`kbopt run --proposer llm` as a user starts it, against a server that speaks the protocol."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from kbopt.core.events import Asked, TaskProfiled
from kbopt.reporting.history import fold
from kbopt.simulated.kernels import to_source
from kbopt.store.journal import JournalReader
from kbopt.store.lessons import read_lessons
from tests.cli.test_run import command, kbopt
from tests.support.agents import GOOD
from tests.support.openai_server import Answer, OpenAIServer, Script
from tests.support.processes import kill_family

TASK = ("--task", "sim/smooth", "--backend", "simulated", "--proposer", "llm")

SMALL_GELU = """
import torch

class Model(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.gelu(x, approximate="tanh")

def get_inputs():
    return [torch.randn(256, 512)]

def get_init_inputs():
    return []
"""
"""A sixth of the size of quick/gelu, on which nothing depends that a model is shown."""


def kernel(*levels: int, delay_s: float = 0.0) -> Answer:
    return Answer(text=f"Other levels.\n\n```python\n{to_source(levels)}```\n", delay_s=delay_s)


def num_answers(folder: Path) -> int:
    """How many answers of models are kept in the run's folder."""
    files = (folder / "transcripts").glob("*.json")
    return sum(len(json.loads(file.read_text())["exchanges"]) for file in files)


@pytest.mark.slow
def test_after_kill_9_no_answer_is_asked_for_or_paid_for_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    folder = tmp_path / "run"
    best = kernel(13, 10, 14, 11, 12, 14, 10, 13, delay_s=0.15)
    others = [kernel(*[(7 * n + 3 * i) % 16 for i in range(8)], delay_s=0.15) for n in range(20)]
    chatter = Answer(text="Larger tiles might help.", delay_s=0.15)
    script = Script(behaviours=(*others[:3], chatter, *others[3:], best), usd_per_token=1e-6)
    with OpenAIServer(script) as server:
        model = ("--model", "openai/scripted", "--api-base", server.url)
        first = subprocess.Popen(
            command("run", *TASK, *model, "--num-steps", 5, "--out", folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 90
        while num_answers(folder) < 8 and time.monotonic() < deadline:
            time.sleep(0.05)
        kill_family(first.pid)
        first.wait(timeout=30)
        asked, kept = len(server.requests), num_answers(folder)
        resumed = kbopt("resume", folder, "--json")
        assert resumed.returncode == 0, resumed.stderr
        # What was under way at the kill is asked again, and nothing else.
        assert len(server.requests) == num_answers(folder) + asked - kept
    assert 8 <= kept <= asked < len(server.requests)
    document = json.loads(resumed.stdout)
    assert document["proposals"] == 25
    assert document["best"]["speedup"] == pytest.approx(3.0)
    (ledger,) = document["models"]
    assert ledger["requests"] == num_answers(folder) >= 26
    assert document["usd"] == pytest.approx(1e-6 * document["tokens"])
    assert document["tokens"] == ledger["prompt_tokens"] + ledger["completion_tokens"] > 0


@pytest.mark.slow
def test_a_run_without_one_kernel_says_why_and_goes_on_once_that_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    folder = tmp_path / "run"
    with OpenAIServer(Script(behaviours=(Answer(text="Shall I write the code?"),))) as server:
        port = int(server.url.split(":")[2].partition("/")[0])
        model = ("--model", "openai/scripted", "--api-base", server.url)
        stuck = kbopt("run", *TASK, *model, "--num-steps", 3, "--explorers", 1, "--out", folder)
        assert len(server.requests) == 24
    assert stuck.returncode == 2
    assert "no kernel came of the last 8 proposals" in stuck.stderr
    assert "there is no fenced ```python block" in stuck.stderr
    answers = tuple(kernel(*[(7 * n + 3 * i) % 16 for i in range(8)]) for n in range(20))
    with OpenAIServer(Script(behaviours=answers), port=port):
        resumed = kbopt("resume", folder, "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["proposals"] == 8 + 15


@pytest.mark.slow
def test_a_model_is_shown_profiles_of_the_reference_and_of_the_kernel_to_improve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    (tmp_path / "task.py").write_text(SMALL_GELU)
    limits = ("--device", "cpu", "--max-evals", 2, "--explorers", 1, "--trials", 2, "--timed", 10)
    answers = tuple(
        Answer(text=f"Another way.\n\n```python\n{GOOD}# {number}\n```\n") for number in range(20)
    )
    with OpenAIServer(Script(behaviours=answers)) as server:
        model = ("--proposer", "llm", "--model", "openai/scripted", "--api-base", server.url)
        done = kbopt("run", "--task", tmp_path / "task.py", *model, *limits, "--out", tmp_path / "run")
        assert done.returncode == 0, done.stderr
        asked = [request.prompt for request in server.requests]
    first = next(text for text in asked if "Write the first kernel" in text)
    assert "The reference's call: " in first
    assert "need " in first
    assert "Choose the structure that you expect to be fastest" in first
    with JournalReader(tmp_path / "run" / "journal.sqlite") as journal:
        happened = [entry.event for entry in journal.entries()]
    (known,) = (event for event in happened if isinstance(event, TaskProfiled))
    assert {"memory", "compute"} & set(known.bounds)
    asked_for = [event.strategy for event in happened if isinstance(event, Asked) and event.parent is None]
    assert asked_for[0] == "own-choice"
    assert len(set(asked_for)) == len(asked_for)
    improve = next(text for text in asked if "The kernel to improve" in text)
    assert "Bottleneck: " in improve
    assert "aten::gelu" in improve


@pytest.mark.slow
def test_first_questions_differ_and_lessons_are_shown_and_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    library, folder = tmp_path / "lessons.toml", tmp_path / "run"
    library.write_text('[[lesson]]\nfamily = "simulated"\ntext = "Larger levels were faster. ```"\n')
    answers = [kernel(*[level] * 8) for level in (2, 3, 4, 9, 10, 11)]
    size = ("--num-steps", 2, "--num-candidates", 3, "--explorers", 1)
    with OpenAIServer(Script(behaviours=tuple(answers))) as server:
        model = ("--model", "openai/scripted", "--api-base", server.url, "--library", library)
        done = kbopt("run", *TASK, *model, *size, "--out", folder)
        assert done.returncode == 0, done.stderr
        asked = [request.prompt for request in server.requests]
    assert all("\n- [simulated] Larger levels were faster. ```\n````\n" in text for text in asked)
    shown = [text.partition("## The strategy")[2].partition("##")[0] for text in asked[:3]]
    assert len(set(shown)) == 3
    assert "Choose the structure" in shown[0]
    with JournalReader(folder / "journal.sqlite") as journal:
        history = fold(journal.entries())
    assert history.nodes["c000001"].strategy == "own-choice"

    kinds = {lesson.kind: lesson for lesson in read_lessons(library)}
    assert kinds.keys() == {"advice", "faster", "strategies"}
    assert "own-choice" in kinds["strategies"].text
    assert kinds["faster"].interval[0] > 1.0
    assert (kinds["faster"].task, kinds["faster"].run) == ("sim/smooth", "run")
    assert kinds["faster"].device == "Simulated GPU"
    assert "lessons added to" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--model", "anthropic/claude-opus-4-5"),
            "needs ANTHROPIC_API_KEY, which the environment does not have. "
            "Set it (export ANTHROPIC_API_KEY=...) and start again.",
        ),
        ((), "needs --model"),
    ],
)
def test_a_model_that_cannot_be_asked_ends_the_run_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    done = kbopt("run", *TASK, *options, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_unknown_placeholder_is_named_with_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    (tmp_path / "again.md").write_text("That will not do:\n$reasons\n")
    with OpenAIServer() as server:
        model = ("--model", "openai/scripted", "--api-base", server.url)
        done = kbopt("run", *TASK, *model, "--prompts", tmp_path, "--out", tmp_path / "run")
        assert server.requests == ()
    assert done.returncode == 2
    assert f"{tmp_path / 'again.md'}:2: unknown placeholder $reasons" in done.stderr, done.stderr
