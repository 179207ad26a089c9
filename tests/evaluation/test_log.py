"""What the service and its trusted processes print is kept in a file that messages name."""

from pathlib import Path

import pytest

from kbopt.backends.local import LocalBackend
from kbopt.core.errors import InfraError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.task import Task
from kbopt.doctor import _end_of_log
from kbopt.evaluation.client import ServiceClient
from tests.evaluation.conftest import ELEMENTWISE, QUICK
from tests.evaluation.test_memory import PLAIN

LAST_WORDS = """
    import os, sys
    print("no more to say", file=sys.stderr, flush=True)
    os.kill(os.getpid(), 7)  # SIGBUS, which a full /dev/shm sends: not the task's fault
    return [torch.randn"""
LEAVES = ELEMENTWISE.replace("\n    return [torch.randn", LAST_WORDS)


async def test_a_judge_that_ends_names_the_file_that_has_its_last_words(tmp_path: Path):
    client = ServiceClient(device="cpu", state_dir=tmp_path / "state")
    await client.open()
    request = EvalRequest(task=Task(name="t", source=LEAVES), source=PLAIN, protocol=QUICK)

    with pytest.raises(InfraError, match=r"ended by SIGBUS; .*/state/service\.log may say why"):
        await client.evaluate(request)

    await client.close()
    assert "no more to say" in (tmp_path / "state" / "service.log").read_text()


def test_the_doctor_shows_the_end_of_the_log(tmp_path: Path):
    backend = LocalBackend(device="cpu", state_dir=tmp_path)
    assert _end_of_log(backend) == ""

    backend.log.write_text("".join(f"line {number}\n" for number in range(100)))

    assert _end_of_log(backend).splitlines()[1].endswith("service.log:")
    assert _end_of_log(backend).endswith("  line 98\n  line 99")
    assert "line 79\n" not in _end_of_log(backend)
