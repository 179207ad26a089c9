"""`kbopt run --proposer agent` as a user starts it."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

import kbopt.proposers as proposers
from kbopt.cli import app
from kbopt.compose.proposers import agent_command
from kbopt.config import AgentName, ProposerConfig
from kbopt.core.events import Attempted, CandidateProfiled, Evaluated, Event, Proposed
from kbopt.finish import open_run
from kbopt.proposers.seeds import seeds_for
from kbopt.reporting.report import report_data
from kbopt.store.journal import JournalReader
from kbopt.tasks import load_task
from tests.agents.test_proposer import AGENT, Lab, kernels
from tests.cli.test_run import command, kbopt
from tests.support.processes import descendants, is_running

SIMULATED = ("--task", "sim/smooth", "--backend", "simulated", "--proposer", "agent")
SEED = (Path(proposers.__file__).parent / "kernels/softmax/cpu_rows.py").read_text()


def events(folder: Path) -> list[Event]:
    with JournalReader(folder / "journal.sqlite") as journal:
        return [entry.event for entry in journal.entries()]


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_the_best_of_an_agents_kernels_is_found_and_its_conversation_is_shown(
    tmp_path: Path,
) -> None:
    (tmp_path / "first.py").write_text(SEED)
    better = SEED.replace("#define SUMS 16", "#define SUMS 32").replace(
        "-fno-unroll-loops", "-funroll-loops", 1
    )
    (tmp_path / "better.py").write_text(better)
    agent = f"{sys.executable} {AGENT} {tmp_path}/first.py {tmp_path}/better.py +spends +profiles"
    folder = tmp_path / "run"
    done = kbopt(
        *("run", "--task", "quick/softmax", "--device", "cpu", "--trials", 1, "--timed", 10, "--json"),
        *("--proposer", "agent", "--agent-command", agent, "--agent-evals", 2, "--max-evals", 2),
        *("--num-steps", 1, "--num-candidates", 1, "--explorers", 1, "--out", folder),
        timeout_s=400,
    )
    assert done.returncode == 0, done.stderr
    assert "1 brief, each for an agent of at most 2 evaluations" in done.stderr
    document = json.loads(done.stdout)
    assert (document["proposals"], document["evaluations"]) == (1, 2)
    assert document["best"]["candidate"].startswith("c000001")  # How fast it is depends on who else is here.
    assert (document["usd"], document["tokens"]) == (0.25, 1050)
    assert [e.candidate.parent for e in events(folder) if isinstance(e, Attempted)] == [None, None]
    told = [event for event in events(folder) if isinstance(event, CandidateProfiled)]
    assert len(told) == 3
    assert all(", by its " in event.outcome for event in told)
    with open_run(folder) as run:
        details = report_data([run])["runs"][0]["details"]
    assert set(details) == {"c000001", "c000001-1", "c000001-2"}
    for detail in details.values():
        assert "evaluated: measured" in detail["transcript"]
    shown = kbopt("show", folder, "c000001-2", "--transcript").stdout
    assert "agent:" in shown
    assert "submitted: {'candidate': 'c000001-" in shown


@pytest.mark.slow
def test_kill_9_of_the_driver_ends_the_agents_and_resume_loses_no_judged_and_no_submitted_kernel(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    agent = f"{sys.executable} {AGENT} {kernels(tmp_path, 3, 9)} +first-hangs-before +hangs-after"
    options = ("--num-steps", 1, "--num-candidates", 2, "--explorers", 2, "--out", folder)
    driver = subprocess.Popen(
        command("run", *SIMULATED, "--agent-command", agent, *options),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 90
    logs = [folder / "agents" / f"c00000{number}.log" for number in (1, 2)]
    while not all(log.exists() and "hangs" in log.read_text() for log in logs):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    family = descendants(driver.pid)
    keepers = {pid for pid in family if b"kbopt.agents.keeper" in Path(f"/proc/{pid}/cmdline").read_bytes()}
    kept = keepers.union(*map(descendants, keepers))
    assert len(kept) >= 6  # for each brief the keeper, the agent and its MCP server
    for pid in (driver.pid, *(family - kept)):
        with suppress(ProcessLookupError):  # A helper of Ray's or of the evaluator's may have ended.
            os.kill(pid, signal.SIGKILL)
    driver.wait(timeout=30)
    while any(map(is_running, kept)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    before = [event for event in events(folder) if isinstance(event, Attempted | Evaluated)]
    resumed = kbopt("resume", folder, "--json")
    assert resumed.returncode == 0, resumed.stderr
    after = events(folder)
    assert [event for event in after if isinstance(event, Attempted)] == [
        event for event in before if isinstance(event, Attempted)
    ]
    # The first agent worked once more, and the second one's submission counts as it is.
    lives = [(folder / "agents" / f"c00000{number}" / "lives.txt").read_text() for number in (1, 2)]
    assert lives == ["..", "."]
    answers = {event.candidate.id: event.candidate.note for event in after if isinstance(event, Proposed)}
    assert answers == {f"c00000{n}": f"submitted c00000{n}-2: kernel 1" for n in (1, 2)}
    # What the agents spent until the kill nobody knows, and that is said.
    assert [u.usd for e in after if isinstance(e, Proposed) for u in e.candidate.usage] == [None, None]
    assert "kernel 1" in kbopt("show", folder, "c000001-2").stdout
    assert "what it spent is not known" in kbopt("show", folder, "c000001", "--transcript").stdout
    document = json.loads(resumed.stdout)
    assert document["evaluations"] == sum(
        not event.cached for event in after if isinstance(event, Evaluated) and not event.is_final
    )


def install(name: AgentName, kernel: object, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the program that stands for `name`, and has `kernel` judged, before all others on the PATH."""
    folder.mkdir()
    script = AGENT.with_name("scripted_presets.py")
    (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {script} {name} {kernel} -- "$@"\n')
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_run_with_a_preset_finds_a_kernel_that_the_judge_calls_faster_than_eager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seed is four to five times as fast as the eager GELU, so the verdict hangs on no noise."""
    (seed, *_) = seeds_for(load_task("quick/gelu").family, "cpu")
    (tmp_path / "gelu.py").write_text(seed.source)
    install("claude", tmp_path / "gelu.py", tmp_path / "bin", monkeypatch)
    folder = tmp_path / "run"
    done = kbopt(
        *("run", "--task", "quick/gelu", "--device", "cpu", "--trials", 1, "--timed", 10, "--json"),
        *("--proposer", "agent", "--agent", "claude", "--agent-evals", 2, "--max-evals", 2),
        *("--num-steps", 1, "--num-candidates", 1, "--explorers", 1, "--out", folder),
        timeout_s=400,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    best = document["best"]
    assert (best["state"], best["ranked_over"]) == ("faster", "eager PyTorch")
    assert best["speedup_ci"][0] > 1.0
    assert (folder / "best.py").read_text() == seed.source
    (answer,) = [event.candidate for event in events(folder) if isinstance(event, Proposed)]
    assert (answer.proposer, answer.note) == ("agent:claude", "submitted c000001-1: kernel 0")
    assert (document["usd"], document["tokens"]) == (0.5, 107)


@pytest.mark.parametrize(
    ("name", "usd", "tokens"), [("claude", 0.5, 107), ("codex", None, 107), ("opencode", 0.125, 107)]
)
async def test_a_preset_connects_its_program_and_reads_what_it_spent(
    name: AgentName, usd: float | None, tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(name, kernels(tmp_path, 9), tmp_path / "bin", monkeypatch)
    made = agent_command(ProposerConfig(name="agent", agent=name))
    assert (made.name, made.max_evals, made.limit_s) == (name, 10, 1800.0)
    lab = Lab(tmp_path, "")
    lab.words = made.words
    (answer,) = [event.candidate for event in await lab.run() if isinstance(event, Proposed)]
    (usage,) = answer.usage
    assert (usage.usd, usage.prompt_tokens + usage.completion_tokens) == (usd, tokens)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "names no agent: add --agent claude, codex, opencode, or --agent-command COMMAND"),
        (
            ("--proposer", "simulated", "--agent", "codex"),
            "--agent and --proposer simulated do not go together: give --proposer agent, or leave",
        ),
        (("--proposer", "simulated", "--agent-command", "sh"), "leave --agent-command out"),
        (("--agent", "cloud"), "Did you mean claude"),
        (("--agent-command", "no-such-agent -p"), "there is no program 'no-such-agent' on the PATH"),
        (("--agent-command", "sh 'x"), "Close its quotes"),
        (("--agent-command", __file__), "is not executable. Make it so with chmod +x"),
        (("--agent-command", f"sh -c '{'true; ' * 99}'", "--synchronous"), "Leave --synchronous out"),
        (("--agent-command", "sh", "--agent", "codex"), "both name an agent: give one"),
        (("--agent-command", "sh", "--synchronous"), "Leave --synchronous out"),
    ],
)
def test_an_agent_that_cannot_be_started_ends_the_run_before_it_starts(
    options: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    words = ["run", *SIMULATED, *options, "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, words, terminal_width=200)
    assert done.exit_code != 0
    assert message in " ".join(f"{done.output} {done.exception}".split())
    assert not (tmp_path / "run").exists()
