"""`kbopt profile` as a user starts it, with the real service on the CPU."""

import json
from importlib import resources
from pathlib import Path

import pytest

from kbopt.core import codec
from kbopt.core.profile import Profile
from tests.cli.test_run import kbopt

SEED = resources.files("kbopt.proposers") / "kernels" / "softmax" / "cpu_rows.py"


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "kernel.py"
    path.write_text(SEED.read_text())
    return path


@pytest.mark.slow
def test_a_kernel_and_its_parent_are_profiled(kernel: Path, tmp_path: Path) -> None:
    parent = tmp_path / "parent.py"
    parent.write_text(SEED.read_text().replace("#define SUMS 16", "#define SUMS 8"))
    command = (
        "profile",
        "--task",
        "quick/softmax",
        "--kernel",
        kernel,
        "--parent",
        parent,
        "--device",
        "cpu",
    )
    done = kbopt(*command, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document.keys() == {"task", "candidate", "reason", "profile", "changes", "text"}
    assert (document["task"], document["reason"]) == ("quick/softmax", None)
    profile = codec.decode(Profile, document["profile"])
    assert profile.limits.size_bytes == 8388608
    assert document["changes"] is not None
    assert "A call: " in document["text"]
    assert "The reference's call: " in document["text"]
    assert "Against the parent: " in document["text"]
    assert "hardware counters are read on NVIDIA GPUs only" in document["text"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--kernel", "k.py"), "needs --task"),
        (("--task", "quick/softmax", "--kernel", "no_such_file.py"), "no_such_file.py"),
        (("--task", "quick/softmax"), "--kernel"),
        (
            ("--task", "quick/softmax", "--kernel", "k.py", "--backend", "simulated"),
            "simulated",
        ),
        (("--task", "quick/softmax", "--kernel", "k.py", "--device", "cuda:7"), "cuda:7"),
    ],
)
def test_a_mistake_is_told_before_anything_starts(words: tuple[str, ...], said: str) -> None:
    done = kbopt("profile", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "backend starting" not in done.stderr
