"""An agent as proposer, from its command to the journal: real processes and a simulated device."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kbopt.cluster.coordinator import Coordinator
from kbopt.cluster.evaluator import EvaluationQueue
from kbopt.cluster.evidence import Evidence
from kbopt.cluster.explorer import Explorer
from kbopt.cluster.messages import Factories, SearchSpec
from kbopt.core.embedding import LocalEmbedder
from kbopt.core.errors import UserError
from kbopt.core.events import Attempted, CandidateProfiled, Evaluated, Event, ProposalFailed, Proposed
from kbopt.core.ports import Attempts
from kbopt.core.profile import Profiled, ProfileRequest
from kbopt.core.protocol import EvalProtocol
from kbopt.core.search import Search
from kbopt.core.settings import Budget, SearchSettings
from kbopt.proposers.agent import AgentCommand, AgentProposer
from kbopt.proposers.agent_desk import MAX_AT_ONCE, MAX_CALLS, MAX_STRANGERS, Place
from kbopt.proposers.agent_presets import usage_of
from kbopt.proposers.journal_summary import JournalSummarizer
from kbopt.proposers.transcripts import Transcripts
from kbopt.simulated import SimulatedBackend, landscape
from kbopt.simulated.driver import ListJournal
from kbopt.simulated.kernels import to_source
from kbopt.store.cache import EvaluationCache
from kbopt.store.journal import JournalReader, SqliteJournal
from tests.core.test_bottleneck import profile
from tests.support import ordinary_user
from tests.support.processes import descendants

AGENT = Path(__file__).with_name("scripted_agent.py")
ROOT = Path(__file__).parents[2]
TASK = landscape("sim/smooth").task


class Lab:
    """One search whose briefs are answered by `command`, with its journal in `folder`."""

    def __init__(
        self,
        folder: Path,
        command: str,
        *,
        evals: int = 4,
        limit_s: float = 60.0,
        budget: Budget | None = None,
        evidence: Evidence | None = None,
    ) -> None:
        settings = SearchSettings(
            num_steps=1, num_candidates=1, remeasure_share=0.0, budget=budget or Budget()
        )
        self.folder = folder
        self.spec = SearchSpec(
            name="one",
            folder=folder,
            task=TASK,
            settings=settings,
            protocol=EvalProtocol(),
            evidence=evidence is not None,
        )
        self.evidence = evidence
        self.words, self.evals, self.limit_s = tuple(shlex.split(command)), evals, limit_s
        self.factories = Factories(
            backend=SimulatedBackend,
            proposer=self.proposer,
            summarizer=lambda _: JournalSummarizer(),
            embedder=lambda _: LocalEmbedder(),
        )

    def proposer(self, spec: SearchSpec, attempts: Attempts) -> AgentProposer:
        command = AgentCommand(
            name="scripted", words=self.words, writable=(), max_evals=self.evals, limit_s=self.limit_s
        )
        return AgentProposer(
            command,
            attempts,
            folder=self.folder / "agents",
            transcripts=self.folder / "transcripts",
            prompts=None,
            language="c",
            device_facts="A simulated device.",
        )

    async def run(self) -> list[Event]:
        """The journal of the search once it has ended."""
        if not self.spec.journal.exists():
            SqliteJournal.create(self.spec.journal, "{}").close()
        queue = EvaluationQueue(
            SimulatedBackend(service_s=0.01), EvaluationCache(self.folder / "cache.sqlite")
        )
        coordinator = Coordinator(
            (self.spec,), self.factories, queue.evaluate, queue.status, queue.take_rent, parallel_searches=1
        )
        try:
            async with asyncio.timeout(90):
                explorer = Explorer(
                    0, coordinator, {"one": self.spec}, self.factories, 1, evidence=self.evidence
                )
                await explorer.run()
        finally:
            await coordinator.stop("closed", end=False)
            await queue.close()
        return self.events()

    def events(self) -> list[Event]:
        with JournalReader(self.spec.journal) as reader:
            return [entry.event for entry in reader.entries()]

    def transcript(self) -> str:
        found = Transcripts(self.folder / "transcripts").latest("c000001")
        assert found is not None
        return found.text


def kernels(folder: Path, *levels: int) -> str:
    """Files with kernels of the simulation, the faster the nearer their level is to 12, as words."""
    for level in levels:
        (folder / f"k{level}.py").write_text(to_source((level,) * 8))
    return " ".join(str(folder / f"k{level}.py") for level in levels)


def failure(events: list[Event]) -> str:
    (failed,) = [event for event in events if isinstance(event, ProposalFailed)]
    return failed.reason


async def test_what_an_agent_has_judged_is_journalled_and_what_it_submits_is_the_answer(
    tmp_path: Path,
) -> None:
    lab = Lab(tmp_path, f"{sys.executable} {AGENT} {kernels(tmp_path, 3, 9, 6)} +spends")
    events = await lab.run()
    attempts = [event.candidate for event in events if isinstance(event, Attempted)]
    assert [candidate.id for candidate in attempts] == ["c000001-1", "c000001-2", "c000001-3"]
    assert [candidate.note for candidate in attempts] == ["kernel 0", "kernel 1", "kernel 2"]
    (answer,) = [event.candidate for event in events if isinstance(event, Proposed)]
    assert answer.source == attempts[1].source
    assert (answer.id, answer.proposer) == ("c000001", "agent:scripted")
    assert answer.note == "submitted c000001-2: kernel 1"
    assert [(usage.usd, usage.requests) for usage in answer.usage] == [(0.25, 3)]
    costs = {event.candidate for event in events if isinstance(event, Evaluated) and not event.cached}
    assert costs == {
        "c000001-1",
        "c000001-2",
        "c000001-3",
        "c000001",
    }  # the last one is the final measurement
    (asked,) = [event for event in events if isinstance(event, Evaluated) and event.candidate == "c000001"][
        :1
    ]
    assert asked.cached
    assert "task: Make a faster kernel for the task `sim/smooth`." in lab.transcript()
    assert "submitted: c000001-2" in lab.transcript()
    replayed = Search(task=TASK, settings=lab.spec.settings, journal=ListJournal())
    replayed.replay(events)
    assert replayed.best is not None
    assert replayed.best.candidate.source == answer.source


async def test_an_agent_is_told_what_limits_a_kernel_of_its_own_and_the_journal_keeps_it(
    tmp_path: Path,
) -> None:
    asked: list[str] = []

    async def profile_of(request: ProfileRequest) -> Profiled:
        asked.append(request.source)
        return profile(80.0 if request.source == to_source((3,) * 8) else 40.0)

    words = f"{sys.executable} {AGENT} {kernels(tmp_path, 3, 9)} +profiles"
    lab = Lab(tmp_path, words, evidence=Evidence(profile_of))
    told = [event for event in await lab.run() if isinstance(event, CandidateProfiled)]
    assert [event.candidate for event in told] == ["c000001-2", "c000001-2", "c000001-1"]
    assert told[0].outcome.startswith("memory, by its counters (DRAM bandwidth in use 85 %")
    assert {to_source((3,) * 8), to_source((9,) * 8)} <= set(asked)
    said = lab.transcript()
    assert f"Bottleneck: {told[0].outcome}." in said
    assert "Against the parent: busy 40 us -> 80 us" in said
    assert "unknown candidate 'c9'. Judged in this session: c000001-1, c000001-2." in said


async def test_an_agent_hears_why_there_is_no_profile(tmp_path: Path) -> None:
    words = f"{sys.executable} {AGENT} {kernels(tmp_path, 3)} +profiles"
    without = Lab(tmp_path / "without", words)
    await without.run()
    assert "c000001-1 could not be profiled: this search goes without profiles" in without.transcript()

    async def refused(_: ProfileRequest) -> Profiled:
        raise UserError("this backend has no profiles")

    lab = Lab(tmp_path / "refused", words, evidence=Evidence(refused))
    told = [event.outcome for event in await lab.run() if isinstance(event, CandidateProfiled)]
    assert set(told) == {"no profile: this backend has no profiles"}
    assert "c000001-1 could not be profiled: this backend has no profiles" in lab.transcript()


async def test_an_agent_gets_no_more_evaluations_than_its_own_budget_and_the_searchs(tmp_path: Path) -> None:
    words = f"{sys.executable} {AGENT} {kernels(tmp_path, 3, 4, 5)}"
    own = Lab(tmp_path / "own", words, evals=2)
    shared = Lab(tmp_path / "shared", words, evals=9, budget=Budget(evaluations=1))
    both = await asyncio.gather(own.run(), shared.run())
    assert [sum(isinstance(event, Attempted) for event in events) for events in both] == [2, 1]
    assert [sum(isinstance(event, Proposed) for event in events) for events in both] == [1, 1]
    assert "the budget of this session is used up: all 2 evaluations (--agent-evals 2)" in own.transcript()
    assert "the search's budget of 1 evaluation is used" in shared.transcript()


@pytest.mark.parametrize(
    ("command", "limit_s", "said"),
    [
        ("sh -c 'echo bye'", 30.0, "submitted no kernel (exit 0). It last printed: bye"),
        ("sh -c 'exit 3'", 30.0, "submitted no kernel (exit 3)"),
        ("sh -c 'setsid sleep 3611 & kill -9 $PPID; echo here'", 30.0, "submitted no kernel (exit 0)"),
        ("sh -c 'kill -9 $$'", 30.0, "submitted no kernel (killed by signal 9)"),
        ("sh -c 'sleep 3611 & setsid sleep 3611; wait'", 0.5, "submitted no kernel (timed out)"),
        ("no-such-agent --fast", 30.0, "no-such-agent"),
    ],
)
async def test_an_agent_that_hands_nothing_in_is_a_proposal_that_failed(
    command: str, limit_s: float, said: str, tmp_path: Path
) -> None:
    before = descendants(os.getpid())
    events = await Lab(tmp_path, command, limit_s=limit_s).run()
    assert said in failure(events)
    assert not any(isinstance(event, Proposed) for event in events)
    assert descendants(os.getpid()) <= before


async def test_an_agent_sees_and_writes_its_own_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "agents" / "c000002" / ".kbopt.json"
    other.parent.mkdir(parents=True)
    other.write_text("another brief's token")
    script = (
        f"echo in > mine; echo out > {tmp_path}/escaped; echo out > ../escaped; "
        f"rm -f {tmp_path}/journal.sqlite; cat {other}; cat /proc/{os.getpid()}/cmdline; env"
    )
    monkeypatch.setenv("OPENAI_API_KEY", "a secret of the user")
    lab = Lab(tmp_path, f"sh -c {shlex.quote(script)}")
    events = await lab.run()
    assert "submitted no kernel (exit 0)" in failure(events)
    said = lab.transcript()
    if "does not confine the agent" in said:
        pytest.skip("this machine grants no mount namespace")
    workspace = tmp_path / "agents" / "c000001"
    assert (workspace / "mine").read_text() == "in\n"
    assert not (tmp_path / "escaped").exists()
    assert not (tmp_path / "agents" / "escaped").exists()
    assert said.count("Read-only file system") >= 2
    assert "another brief's token" not in said
    assert f"/proc/{os.getpid()}/cmdline" in said  # There is no such process for it.
    assert "CUDA_VISIBLE_DEVICES=\n" in said
    assert "OPENAI_API_KEY=[redacted]" in said
    given = {".mcp.json", "TASK.md", "opencode.json", "task.py", "tmp"}
    assert {path.name for path in workspace.iterdir()} == {*given, "mine"}
    assert (workspace / "task.py").read_text() == TASK.source


class DeskCaller:
    """A program that speaks to a desk by itself, as no MCP client would."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def say(self, token: str, *lines: str) -> list[dict[str, object]]:
        """The reply to each line, or to the token where that is wrong."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._place.port, limit=2**26)
        writer.write("".join(f"{line}\n" for line in (token, *lines)).encode())
        writer.write_eof()
        replies = [json.loads(line) async for line in reader]
        writer.close()
        return replies


def evaluate(level: int) -> str:
    return json.dumps({"type": "Evaluate", "source": to_source((level,) * 8), "note": "", "client": "x"})


@pytest.fixture
async def caller(tmp_path: Path) -> AsyncIterator[tuple[DeskCaller, Place, Lab]]:
    """The desk of an agent that sleeps."""
    lab = Lab(tmp_path, "sleep 3612", evals=20)
    running = asyncio.create_task(lab.run())
    file = tmp_path / "agents" / "c000001" / ".kbopt.json"
    while not file.exists() or not file.read_text():
        await asyncio.sleep(0.02)
    raw = json.loads(file.read_text())
    place = Place(port=raw["port"], token=raw["token"])
    yield DeskCaller(place), place, lab
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_stranger_is_sent_away_and_garbage_is_refused(
    caller: tuple[DeskCaller, Place, Lab],
) -> None:
    desk, place, lab = caller
    (sent_away,) = await desk.say("0" * 32, evaluate(3))
    assert "not the token of this brief" in str(sent_away["reason"])
    garbage = ["garbage", "{}", "[]", '{"type": "Submit", "candidate": "c000009-1"}']
    replies = await desk.say(place.token, *garbage, evaluate(3))
    assert [reply["type"] for reply in replies] == ["Refused"] * 4 + ["Verdict"]
    assert "unknown candidate 'c000009-1'" in str(replies[3]["reason"])
    assert sum(isinstance(event, Attempted) for event in lab.events()) == 1
    too_large = json.dumps({"type": "Evaluate", "source": "#" * 300_000, "note": "", "client": "x"})
    (refused,) = await desk.say(place.token, too_large)
    assert "at most 262,144 are judged" in str(refused["reason"])


async def test_strangers_that_connect_and_say_nothing_do_not_keep_the_agent_out(
    caller: tuple[DeskCaller, Place, Lab],
) -> None:
    desk, place, _ = caller
    silent = [await asyncio.open_connection("127.0.0.1", place.port) for _ in range(3 * MAX_STRANGERS)]
    (verdict,) = await desk.say(place.token, evaluate(3))
    assert verdict["type"] == "Verdict"
    for _, writer in silent:
        writer.close()


async def test_a_flood_is_judged_a_few_at_a_time_and_ends(caller: tuple[DeskCaller, Place, Lab]) -> None:
    desk, place, lab = caller
    together = await asyncio.gather(*(desk.say(place.token, evaluate(level)) for level in range(1, 13)))
    kinds = [replies[0]["type"] for replies in together if replies]
    assert kinds.count("Verdict") == sum(isinstance(event, Attempted) for event in lab.events())
    refused = [str(replies[0]["reason"]) for replies in together if replies[0]["type"] == "Refused"]
    assert all(f"at most {MAX_AT_ONCE} at a time" in reason for reason in refused)
    assert len(refused) >= 1
    looks = await desk.say(place.token, *['{"type": "Look"}'] * MAX_CALLS)
    assert looks[0]["type"] == "BriefState"
    assert f"and {MAX_CALLS} are answered" in str(looks[-1]["reason"])


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of which an ordinary user can enter all parents."""
    with tempfile.TemporaryDirectory(prefix="home-") as folder:
        yield Path(folder)


@pytest.mark.parametrize("namespaces", [True, False])
def test_an_ordinary_users_agent_is_confined_too_and_says_where_it_is_not(
    namespaces: bool, home: Path
) -> None:
    workspace = home / "agents" / "c000001"
    workspace.mkdir(parents=True)
    (workspace / "TASK.md").write_text("the task\n")
    login, session = home / "login.json", home / "sessions"
    login.write_text("")
    session.mkdir()
    script = (
        f"cat; echo in > mine; echo out > ../../escaped; echo in > {login}; echo in > {session}/one; "
        f"tr -d '\\0' < /proc/{os.getpid()}/cmdline"
    )
    writable = (str(workspace), str(login), str(session))
    keeper = ("-P", "-m", "kbopt.agents.keeper", *writable, "--", "sh", "-c", script)
    words = ordinary_user.command(home, sys.executable, *keeper, namespaces=namespaces)
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    process.wait(timeout=30)
    said = process.communicate()[0]
    assert "the task\n" in said
    for file in (workspace / "mine", login, session / "one"):
        assert file.read_text() == "in\n"
    assert ("does not confine the agent" in said) != namespaces
    assert (home / "escaped").exists() != namespaces
    own = Path("/proc/self/cmdline").read_text().replace("\0", "")
    assert (own in said) != namespaces


@pytest.mark.parametrize(
    ("line", "usd", "tokens"),
    [
        (
            '{"type": "result", "total_cost_usd": 0.5, "result": "a \u2028 b", "usage": {"input_tokens": 7}}',
            0.5,
            7,
        ),
        ('{"type": "result", "total_cost_usd": NaN, "usage": {"input_tokens": -5}}', None, 0),
        ('{"type": "result", "total_cost_usd": true, "usage": {"input_tokens": true}}', None, 0),
        ('{"type": "result", "total_cost_usd": 1' + "0" * 400 + "}", None, 0),
        ('{"type": "result", "usage": {"input_tokens": 1' + "0" * 400 + "}}", None, 0),
        ('{"type": "result", "total_cost_usd": 1' + "0" * 5000 + "}", None, 0),
        ('{"type": "result", "total_cost_usd": "much", "usage": [3]}', None, 0),
    ],
)
def test_what_an_agent_says_that_it_spent_is_taken_where_it_is_a_number(
    line: str, usd: float | None, tokens: int
) -> None:
    usage = usage_of(f"\x1b[2J\xff\n{line}\n", "agent", 1.0)
    assert (usage.usd, usage.prompt_tokens) == (usd, tokens)
