"""Host memory as a budget: what may be used, who waits, who is refused, and whom a kill is not blamed on."""

import os
import signal
import threading
from collections.abc import Callable, Collection, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kbopt.core.errors import UserError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.outcomes import Crashed, Measured, outcome_name
from kbopt.core.task import Task
from kbopt.evaluation.messages import Sizes
from kbopt.evaluation.sandbox.children import Child
from kbopt.evaluation.sandbox.memory import GIB, SERVICE_BYTES, find_host
from kbopt.evaluation.server.budget import Budget, Need
from kbopt.evaluation.server.judge_handle import JudgeHandle
from kbopt.evaluation.server.needs import CPU_PROCESS_BYTES, GXX_BYTES, need_of
from kbopt.evaluation.server.service import Service
from tests.evaluation.conftest import ELEMENTWISE, QUICK

MEMINFO = "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\n"
VMSTAT = "pgfault 7\noom_kill {}\n"
PLAIN = """
import torch

class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x) * 2 + x
"""


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": MEMINFO, "proc/vmstat": VMSTAT.format(0), **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_without_a_limit_the_machines_memory_is_the_limit(tmp_path: Path):
    host = find_host(root=machine(tmp_path, {}))

    assert host.limit_bytes == 16 * GIB
    assert host.used_bytes() == 8 * GIB
    assert host.source == "the machine's memory"


def test_the_tightest_of_nested_cgroups_is_the_limit_and_page_cache_is_not_use(tmp_path: Path):
    files = {
        "proc/self/cgroup": "0::/pod/box\n",
        "sys/fs/cgroup/pod/memory.max": f"{6 * GIB}\n",
        "sys/fs/cgroup/pod/memory.current": f"{3 * GIB}\n",
        "sys/fs/cgroup/pod/memory.stat": f"anon 5\ninactive_file {GIB}\n",
        "sys/fs/cgroup/pod/memory.events": "oom 9\noom_kill 2\n",
        "sys/fs/cgroup/pod/box/memory.max": "max\n",
        "proc/vmstat": VMSTAT.format(4),
    }
    host = find_host(root=machine(tmp_path, files))

    assert host.limit_bytes == 6 * GIB
    assert host.used_bytes() == 2 * GIB
    assert host.source.endswith("sys/fs/cgroup/pod/memory.max")
    assert host.num_kills() == 6


def test_in_a_container_whose_cgroup_has_the_hosts_name_the_mount_itself_is_read(tmp_path: Path):
    files = {
        "proc/self/cgroup": "0::/../../somewhere/else\n",
        "sys/fs/cgroup/memory.max": f"{2 * GIB}",
        "sys/fs/cgroup/memory.current": "0",
    }

    assert find_host(root=machine(tmp_path, files)).limit_bytes == 2 * GIB


def test_the_first_version_of_cgroups_is_read_too_and_its_unlimited_is_none(tmp_path: Path):
    files = {
        "proc/self/cgroup": "5:cpu:/\n4:memory:/box\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        "sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{4 * GIB}",
        "sys/fs/cgroup/memory/box/memory.usage_in_bytes": f"{2 * GIB}",
        "sys/fs/cgroup/memory/box/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB}\n",
        "sys/fs/cgroup/memory/box/memory.oom_control": "oom_kill_disable 0\noom_kill 3\n",
    }
    host = find_host(root=machine(tmp_path, files))

    assert host.limit_bytes == 4 * GIB
    assert host.used_bytes() == GIB
    assert host.num_kills() == 3


def test_a_limit_above_the_machines_memory_is_none(tmp_path: Path):
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{64 * GIB}"}

    assert find_host(root=machine(tmp_path, files)).limit_bytes == 16 * GIB


def test_an_explicit_limit_goes_before_the_others(tmp_path: Path):
    host = find_host(6, machine(tmp_path, {}))

    assert (host.limit_bytes, host.used_bytes()) == (6 * GIB, SERVICE_BYTES)
    with pytest.raises(UserError, match="--memory-gib 0: give a number of GiB above 0"):
        find_host(0, tmp_path)


class Judges:
    """Idle judges, least recently used first."""

    def __init__(self, limit_gib: float, root: Path, most: int = 8) -> None:
        self.kept: list[Hashable] = []
        self.closed: list[Hashable] = []
        self.needs: dict[str, Need] = {}
        self.budget = Budget(find_host(limit_gib, machine(root, {})), most, self.close_idle)

    def close_idle(self, keep: Collection[Hashable]) -> bool:
        for key in self.kept:
            if key not in keep:
                self.kept.remove(key)
                self.closed.append(key)
                self.budget.forget(key)
                return True
        return False

    @contextmanager
    def request(self, key: str, own_gib: float, judge_gib: float, *, alone: bool = False) -> Iterator[Any]:
        self.needs[key] = Need(own=int(own_gib * GIB), judge=int(judge_gib * GIB))
        with self.budget.reserve(key, f"task {key}", lambda: self.needs[key], alone=alone) as reservation:
            self.kept = [*(other for other in self.kept if other != key), key]
            yield reservation


def test_judges_stay_until_their_memory_is_needed_and_the_least_used_goes_first(tmp_path: Path):
    judges = Judges(8, tmp_path)
    for key in ("a", "b", "a", "c"):
        with judges.request(key, 1, 1.5):
            pass
    assert judges.closed == []

    with judges.request("d", 2, 1.5):
        assert judges.closed == ["b"]


def test_a_request_that_does_not_fit_beside_others_waits_and_the_next_waits_behind_it(tmp_path: Path):
    judges = Judges(8, tmp_path)
    order: list[str] = []
    threads: list[threading.Thread] = []

    def later(key: str, own_gib: float) -> None:
        def work() -> None:
            with judges.request(key, own_gib, 0):
                order.append(key)

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        while len(judges.budget._waiting) < len(threads):
            pass

    with judges.request("first", 4, 0):
        later("large", 5)
        later("small", 1)
        assert order == []
    for thread in threads:
        thread.join(10)

    assert order == ["large", "small"]


def test_what_cannot_fit_alone_is_refused_with_figures_and_a_remedy(tmp_path: Path):
    judges = Judges(4, tmp_path)
    wanted = (
        r"task x needs 9\.00 GiB of host memory, and it may use 3\.40 GiB of 4\.00 GiB, --memory-gib; make"
    )

    with pytest.raises(UserError, match=wanted), judges.request("x", 8, 1):
        pass
    with judges.request("y", 1, 1):  # Nobody waits behind it.
        pass


def test_a_request_that_turns_out_to_need_more_has_idle_judges_closed_and_is_refused_at_last(tmp_path: Path):
    judges = Judges(6, tmp_path)
    with judges.request("idle", 0, 2):
        pass
    with judges.request("x", 1, 1) as reservation:
        assert judges.closed == []
        judges.needs["x"] = Need(own=3 * GIB, judge=GIB)
        reservation.grow()
        assert judges.closed == ["idle"]
        judges.needs["x"] = Need(own=7 * GIB, judge=GIB)
        with pytest.raises(UserError, match=r"needs 8\.00 GiB"):
            reservation.grow()


def test_alone_means_that_no_judge_is_kept_and_nothing_else_starts(tmp_path: Path):
    judges = Judges(8, tmp_path)
    with judges.request("a", 1, 1):
        pass
    started = threading.Event()

    def work() -> None:
        with judges.request("b", 1, 1):
            started.set()

    with judges.request("a", 1, 1, alone=True):
        assert judges.closed == ["a"]
        other = threading.Thread(target=work)
        other.start()
        assert not started.wait(0.3)
    other.join(10)
    assert started.is_set()


def test_what_judging_needs_follows_from_the_tasks_data():
    data = Sizes(inputs_bytes=300 * 2**20, outputs_bytes=300 * 2**20, parameters_bytes=0, peak_bytes=0)
    unknown = need_of(PLAIN, None, on_cuda=False, compiles=False, kernelbench=False)
    large = need_of(PLAIN, data, on_cuda=False, compiles=False, kernelbench=False)

    assert unknown.own + unknown.judge < 1.5 * GIB
    assert large.judge == 2 * CPU_PROCESS_BYTES + 300 * 2**20
    assert large.own > CPU_PROCESS_BYTES + 9 * 300 * 2**20
    assert need_of("load_inline()", None, on_cuda=False, compiles=False, kernelbench=False).own == GXX_BYTES


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The counter of processes that were killed because memory ran out."""
    return machine(tmp_path_factory.mktemp("machine"), {}) / "proc/vmstat"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, kernel: Path) -> Iterator[Service]:
    host = find_host(3, kernel.parents[1])
    with closing(Service("cpu", tmp_path_factory.mktemp("state"), host)) as made:
        yield made


def request(number: int = 0, source: str = PLAIN, task: str = ELEMENTWISE) -> EvalRequest:
    return EvalRequest(
        task=Task(name=f"t{number}", source=f"{task}\n# {number}"), source=source, protocol=QUICK
    )


def test_many_tasks_at_once_stay_within_the_budget(service: Service):
    """As many judges are kept as fit."""
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: service.evaluate(request(number)), range(8)))

    assert [outcome_name(result.outcome) for result in results] == ["measured"] * 8
    held = sum(service._budget._judges.values())
    alive = [handle for handle in service._judges._handles.values() if handle.alive]
    assert 1 <= len(alive) == len(service._budget._judges) < 8
    assert held < service._budget.available_bytes


def killing(monkeypatch: pytest.MonkeyPatch, kernel: Path, victim: Callable[[Any, Child], int], times: int):
    """As the kernel does it when memory runs out while a candidate is judged."""
    judge, left = JudgeHandle.judge, list(range(times))

    def judged(handle: JudgeHandle, request: EvalRequest, child: Child, *rest: Any) -> dict[str, Any]:
        if left:
            left.pop()
            *_, killed = kernel.read_text().split()
            kernel.write_text(VMSTAT.format(int(killed) + 1))
            os.kill(victim(handle, child), signal.SIGKILL)
        return judge(handle, request, child, *rest)

    monkeypatch.setattr(JudgeHandle, "judge", judged)


def judge_of(handle: JudgeHandle, child: Child) -> int:
    return handle._pid


def candidate_of(handle: JudgeHandle, child: Child) -> int:
    return child.init_pid


@pytest.mark.parametrize("victim", [judge_of, candidate_of])
def test_what_the_kernel_killed_is_tried_again_alone(
    service: Service, kernel: Path, monkeypatch: pytest.MonkeyPatch, victim: Any
):
    killing(monkeypatch, kernel, victim, 1)

    outcome = service.evaluate(request()).outcome

    assert isinstance(outcome, Measured), outcome


def test_a_judge_that_is_killed_alone_is_a_task_too_large_with_figures(
    service: Service, kernel: Path, monkeypatch: pytest.MonkeyPatch
):
    killing(monkeypatch, kernel, judge_of, 2)

    with pytest.raises(
        UserError, match=r"the judge of task t0 was killed .* of 3\.00 GiB, --memory-gib; make"
    ):
        service.evaluate(request())

    assert isinstance(service.evaluate(request()).outcome, Measured)


def test_a_candidate_that_is_killed_alone_crashed_for_want_of_memory(
    service: Service, kernel: Path, monkeypatch: pytest.MonkeyPatch
):
    killing(monkeypatch, kernel, candidate_of, 2)

    outcome = service.evaluate(request()).outcome

    assert isinstance(outcome, Crashed)
    assert outcome.how == "out of memory"


def test_a_candidate_that_kills_itself_is_not_tried_again(service: Service):
    source = PLAIN.replace("return", "import os; os.kill(os.getpid(), 9); return")
    outcome = service.evaluate(request(source=source)).outcome

    assert isinstance(outcome, Crashed)
    assert outcome.how == "SIGKILL"


HOARDS = ELEMENTWISE.replace(
    "        return", "        kept = [torch.ones(2**27) for _ in range(64)]\n        return"
)
HUGE = ELEMENTWISE.replace("256, 512", "25_000, 4_000")


def test_a_task_that_takes_all_memory_in_forward_is_refused_and_the_next_is_judged(service: Service):
    with pytest.raises(UserError, match=r"does not fit into the host's memory.*may use 2\.45 GiB"):
        service.evaluate(request(1, task=HOARDS))

    assert isinstance(service.evaluate(request(2)).outcome, Measured)


def test_a_candidate_that_takes_all_memory_in_forward_crashed_and_the_next_is_judged(service: Service):
    source = PLAIN.replace(
        "        return", "        kept = [torch.ones(2**27) for _ in range(64)]\n        return"
    )

    assert isinstance(service.evaluate(request(source=source)).outcome, Crashed)
    assert isinstance(service.evaluate(request()).outcome, Measured)


def test_a_task_whose_inputs_do_not_fit_is_refused_before_its_reference_runs(service: Service):
    with pytest.raises(
        UserError, match=r"judging task t1 needs .* --memory-gib; make the task's inputs smaller"
    ):
        service.evaluate(request(1, task=HUGE))
    with pytest.raises(UserError, match="judging task t1 needs"):  # Known by then, so nothing is started.
        service.evaluate(request(1, task=HUGE))

    assert isinstance(service.evaluate(request(2)).outcome, Measured)


def test_inputs_that_take_too_long_are_said_to(service: Service, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kbopt.evaluation.server.judge_handle._DRAW_S", 5.0)
    slow = ELEMENTWISE.replace(
        "    return [torch.randn", "    import time; time.sleep(60)\n    return [torch.randn"
    )

    with pytest.raises(UserError, match=r"of task t1 get_inputs\(\) took longer than 5 s"):
        service.evaluate(request(1, task=slow))
