"""A task whose own code ends its process, or raises what nobody expects, is told as the task's fault."""

import asyncio
from pathlib import Path

import pytest

from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.outcomes import Measured
from kbopt.core.task import Task
from kbopt.evaluation.client import ServiceClient
from tests.evaluation.conftest import QUICK, Bench
from tests.evaluation.test_verdicts import PLAIN

SEGFAULT = "__import__('ctypes').string_at(0)"


def task(*, at_import: str = "", init: str = "", inputs: str = "", forward: str = "") -> str:
    return (
        f"import os\nimport sys\n\nimport torch\n\n{at_import}\n\n\nclass Model(torch.nn.Module):\n"
        f"    calls = 0\n\n    def __init__(self):\n        super().__init__()\n        {init or 'pass'}\n\n"
        f"    def forward(self, x):\n        self.calls += 1\n        {forward or 'pass'}\n"
        "        return torch.tanh(x) * 2 + x\n\n\n"
        f"def get_inputs():\n    {inputs or 'pass'}\n    return [torch.randn(256, 512)]\n\n\n"
        "def get_init_inputs():\n    return []\n"
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (task(at_import="os._exit(3)"), r"by exit code 3, while its source was loaded.*such as os\._exit"),
        (task(at_import="os._exit(0)"), "by exit code 0, while its source was loaded"),
        (task(init="os._exit(3)"), r"by exit code 3, while its source .* was made"),
        (task(inputs="os._exit(3)"), r"by exit code 3, in get_inputs\(\)"),
        (task(forward="os._exit(3)"), r"by exit code 3, in get_inputs\(\) or Model\.forward"),
        (task(at_import=SEGFAULT), "by SIGSEGV, while its source was loaded"),
        (task(init="os.abort()"), r"by SIGABRT, .*service.log has the line"),
        (task(inputs=SEGFAULT), r"by SIGSEGV, in get_inputs\(\)"),
        (task(forward=SEGFAULT), r"by SIGSEGV, in get_inputs\(\) or Model"),
        (task(inputs="os.closerange(3, 512)"), r"by exit code 0, in get_inputs\(\)"),
        (task(forward="sys.exit(3)"), "the reference's forward raised SystemExit: 3"),
        (task(at_import="raise KeyboardInterrupt"), "cannot be loaded: KeyboardInterrupt"),
        (task(init="self.register_state_dict_pre_hook(lambda *_: os._exit(3))"), "by exit code 3, while"),
    ],
)
def test_an_end_of_its_process_is_told_with_what_to_do(source: str, said: str, bench: Bench):
    with pytest.raises(UserError, match=f"(?s)admission test 'the reference runs' failed.*{said}|{said}"):
        bench.judge(PLAIN, task=source)


def test_also_while_a_kernel_is_judged(bench: Bench):
    """Admission has called it some twenty times by then, on other values."""
    source = task(forward="os._exit(3) if x.abs().max() > 1e3 else None")

    with pytest.raises(UserError, match="by exit code 3, "):
        bench.judge(PLAIN, task=source)


def test_the_log_has_the_line_of_a_crash(bench: Bench):
    with pytest.raises(UserError, match="SIGSEGV"):
        bench.judge(PLAIN, task=task(inputs=SEGFAULT))

    for _ in range(200):
        if "in get_inputs" in bench.client.log.read_text():
            return
        bench.runner.run(asyncio.sleep(0.05))
    pytest.fail(bench.client.log.read_text())


COPIED = """
class Copied:
    number = 0

    def __deepcopy__(self, memo):
        Copied.number += 1
        if Copied.number > 3:
            raise ValueError("copied")
        return Copied()
"""


def test_an_exception_where_none_is_expected_is_the_tasks_too(bench: Bench):
    source = task(init="self.copied = Copied()", at_import=COPIED)

    with pytest.raises(UserError, match="its code raised ValueError: copied"):
        bench.judge(PLAIN, task=source.replace("* 2 + x", "* 2 + x * self.calls"))


@pytest.mark.parametrize("refuses", ["assert x.dtype == torch.float32", "x.numpy().astype('>f4')"])
def test_a_model_may_refuse_float64_by_any_exception(refuses: str, bench: Bench):
    checked = task(forward=f"{refuses} if x.dtype == torch.float32 else [][0]")

    assert isinstance(bench.judge(PLAIN, task=checked).outcome, Measured)


async def test_what_the_machine_ends_is_no_fault_of_the_task(tmp_path: Path):
    """A full /dev/shm sends SIGBUS."""
    client = ServiceClient(device="cpu", state_dir=tmp_path)
    await client.open()
    bus = task(inputs="os.kill(os.getpid(), 7)")
    with pytest.raises(InfraError, match="was ended by SIGBUS"):
        await client.evaluate(EvalRequest(task=Task(name="t", source=bus), source=PLAIN, protocol=QUICK))
    await client.close()
