"""A key in the model server's address is in nothing that a run keeps, prints or hands on."""

from __future__ import annotations

import base64
import gzip
import re
from pathlib import Path

import pytest

from kbopt.simulated.kernels import to_source
from tests.cli.test_run import kbopt
from tests.support.openai_server import Answer, OpenAIServer, Script

KEY = "S3cretValueQ1"
TASK = ("--task", "sim/smooth", "--backend", "simulated", "--proposer", "llm", "--model", "openai/scripted")


def texts(folder: Path) -> str:
    """Everything in the folder's files, what the page has packed too."""
    raw = "".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())
    packed = re.findall(r"[A-Za-z0-9+/=]{400,}", (folder / "report.html").read_text())
    return raw + "".join(gzip.decompress(base64.b64decode(one)).decode() for one in packed)


@pytest.mark.slow
def test_keys_in_the_address_are_kept_nowhere_and_resume_asks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is in the query, one follows a word that says so, and one looks like a key."""
    under, query = f"/S3cretValueQ1a7Kd9XqL2mZ/keys/{KEY}", f"?api-key={KEY}"
    stored = "/[redacted]/keys/[redacted]/v1?api-key=[redacted]"
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "run"
    kernels = [f"```python\n{to_source([n, 3, 5, 7, 2, 4, 6, 8])}```\n" for n in range(1, 5)]
    answers = tuple(Answer(text=text) for text in kernels)
    script = Script(behaviours=answers, query=query.removeprefix("?"), under=under)
    with OpenAIServer(script) as server:
        address = server.url + query
        wandb = ("--use-wandb", "--project-name", "p")
        done = kbopt("run", *TASK, "--api-base", address, "--max-evals", 2, "--out", folder, *wandb)
        assert done.returncode == 0, done.stderr
        assert KEY not in done.stdout + done.stderr
        assert stored in texts(folder)
        assert KEY not in texts(folder)
        resumed = kbopt("resume", folder)
        assert resumed.returncode == 2
        assert "KBOPT_API_BASE is not set" in resumed.stderr
        monkeypatch.setenv("KBOPT_API_BASE", f"http://127.0.0.1:9{under}/v1{query}")
        elsewhere = kbopt("resume", folder)
        assert f"of another server: http://127.0.0.1:9{stored}" in elsewhere.stderr
        monkeypatch.setenv("KBOPT_API_BASE", address)
        resumed = kbopt("resume", folder)
    assert resumed.returncode == 0, resumed.stderr
    assert KEY not in resumed.stdout + resumed.stderr + texts(folder)


def test_an_address_that_no_server_answers_is_named_without_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    address = f"http://me:{KEY}@127.0.0.1:9/v1?api-key={KEY}"
    done = kbopt("run", *TASK, "--api-base", address, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "http://[redacted]@127.0.0.1:9/v1?api-key=[redacted]" in done.stderr
    assert KEY not in done.stdout + done.stderr
