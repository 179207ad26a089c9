"""Across processes: what a killed search paid for is not paid for again, and what importing costs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from kbopt.core import codec
from tests.support.llm_briefs import rewrite
from tests.support.openai_server import Answer, Hang, Script

PROPOSE = """
import asyncio, sys
from pathlib import Path
from kbopt.proposers.llm import LLMProposer
from kbopt.proposers.models import parse_models
from tests.support.llm_briefs import brief, trial

async def main():
    llm = LLMProposer(
        models=parse_models("openai/scripted"), api_base=sys.argv[1], prompts=None, language="c",
        device_facts="", transcripts=Path(sys.argv[2]), max_concurrent=4, timeout_s=60.0,
    )
    for name in ("b1", "b2"):
        answer = await llm.propose(brief(name, parent=trial()))
        print(name, answer.usage[0].requests, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server in a process of its own: answers once, hangs once, then answers again."""
    script = Script(behaviours=(Answer(text=rewrite()), Hang(), Answer(text=rewrite())))
    file = tmp_path / "script.json"
    file.write_text(codec.dumps(script))
    command = [sys.executable, "-m", "tests.support.openai_server", "--script", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def num_requests(url: str) -> int:
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/requests", timeout=10) as response:
        return len(json.loads(response.read()))


@pytest.mark.slow
def test_after_a_kill_an_answered_brief_is_not_asked_again(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    command = [sys.executable, "-c", PROPOSE, server, str(tmp_path / "transcripts")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        deadline = time.monotonic() + 80
        while num_requests(server) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
        assert first.communicate()[0] == "b1 1\n"
    second = subprocess.run(command, capture_output=True, text=True, timeout=80, check=True)
    # The first brief's cost is told again, because nobody may have written it down before the kill.
    assert second.stdout == "b1 1\nb2 1\n"
    assert num_requests(server) == 3


def test_importing_the_proposers_imports_no_litellm() -> None:
    code = (
        "import sys, kbopt.proposers.llm, kbopt.proposers.mixed, kbopt.proposers.preflight\n"
        "import kbopt.proposers.llm_summary, kbopt.proposers.model_embedding\n"
        "assert not {'litellm', 'openai', 'torch', 'ray'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.slow
def test_loading_litellm_is_silent_and_touches_no_network() -> None:
    code = (
        "import socket\n"
        "def refuse(*args): raise AssertionError(f'connects to {args}')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from kbopt.proposers.litellm_service import load_litellm, price_of\n"
        "load_litellm(); price_of('openai/scripted'); price_of('nobody/model')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
