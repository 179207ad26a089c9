"""--verdict: which one is printed, and for which kernels of a search KernelBench's own is asked."""

from pathlib import Path
from typing import get_args

import pytest

from kbopt.cli.batch import headline
from kbopt.compose.searches import search_spec
from kbopt.config import RunConfig
from kbopt.core import codec
from kbopt.core.evaluations import KernelBenchVerdict, Result, Seconds
from kbopt.core.outcomes import Crashed
from kbopt.core.protocol import Verdict
from kbopt.core.task import Task
from kbopt.sweep import SweepConfig

TASK = Task(name="t", source="class Model: ...")
RESULT = Result(
    outcome=Crashed(reason="no luck", how="SIGSEGV"),
    feedback="",
    device="cpu",
    protocol="p",
    boot="b",
    seconds=Seconds(),
    device_s=0.0,
    kernelbench=KernelBenchVerdict(
        compiled=True,
        correctness=True,
        metadata={},
        runtime=0.5,
        runtime_stats={},
        ref_runtime=1.0,
        ref_runtime_stats={},
    ),
)
STRICT = "crashed: no luck"
OWN = "by KernelBench's own protocol correct, 0.5 ms instead of 1 ms, every call on the same inputs"


@pytest.mark.parametrize(
    ("verdict", "line"), [("strict", STRICT), ("kernelbench", OWN), ("both", f"{STRICT}; {OWN}")]
)
def test_a_line_gives_the_verdict_that_was_asked_for(verdict: Verdict, line: str) -> None:
    assert headline(RESULT, verdict) == line


@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_kernelbench_judges_each_kernel_of_a_search_unless_only_the_strict_one_is_wanted(
    verdict: Verdict, tmp_path: Path
) -> None:
    sweep = SweepConfig(name="s", tasks=(TASK,), algorithms=("PS",), seeds=(0, 1), verdict=verdict)
    for config in (RunConfig(name="r", task=TASK, verdict=verdict), *sweep.runs()):
        assert search_spec(config, tmp_path).kernelbench == (verdict != "strict")


def test_a_run_of_an_older_version_asks_for_it_once() -> None:
    stored = codec.encode(RunConfig(name="r", task=TASK))
    del stored["verdict"]
    assert codec.decode(RunConfig, stored).verdict == "strict"
