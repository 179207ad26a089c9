"""Several devices behind one queue: devices that are made up, and two real services on the CPU."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kbopt.backends.local import LocalBackend
from kbopt.backends.pool import DevicePool
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest, Refused, Result, TaskReport
from kbopt.core.outcomes import Measured
from kbopt.core.ports import BackendStatus, Phase
from kbopt.core.profile import ProfileRequest
from kbopt.core.task import Task
from kbopt.simulated import SimulatedBackend
from tests.support import quick_task


class Device(SimulatedBackend):
    """Notes which tasks it got; holds them while `gate` is shut; is lost where `fails`.

    It fails the tasks that are `cursed`, and lives on.
    """

    def __init__(self, kind: str = "made up") -> None:
        super().__init__(service_s=0.0)
        self.kind = kind
        self.tasks: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails = False
        self.cursed: set[str] = set()
        self.phases: Mapping[Phase, int] = {}

    async def open(self) -> BackendStatus:
        if self.fails:
            raise InfraError("it does not start")
        await super().open()
        return await self.status()

    async def status(self) -> BackendStatus:
        now = await super().status()
        return replace(now, device=self.kind, state="failed" if self.fails else now.state, phases=self.phases)

    async def evaluate(self, requests: Sequence[EvalRequest]) -> list[Result]:
        self.tasks += [request.task.source.rpartition("# ")[2] for request in requests]
        await self.gate.wait()
        if self.fails:
            raise InfraError("it fell off the bus")
        if self.tasks[-1] in self.cursed:
            raise InfraError("the process that holds the reference ended")
        return await super().evaluate(requests)


def request(task: str, number: int = 0) -> EvalRequest:
    return EvalRequest(
        task=Task(name="sim/smooth", source=f"sim/smooth\n# {task}"),
        source=f"no kernel {number}",
        protocol=quick_task.PROTOCOL,
    )


async def test_a_task_stays_where_it_is_known_and_new_ones_go_where_nobody_waits() -> None:
    one, two = Device(), Device()
    pool = DevicePool([one, two])
    for task in ("a", "b", "a", "b"):
        await pool.evaluate([request(task)])
    assert (one.tasks, two.tasks) == (["a", "b", "a", "b"], [])

    one.gate.clear()
    held = asyncio.create_task(pool.evaluate([request("a")]))
    await asyncio.sleep(0)
    await pool.evaluate([request("c")])
    assert two.tasks == ["c"]
    one.gate.set()
    await held


class Describing(Device):
    async def describe(self, _: EvalRequest) -> TaskReport:
        return Refused(device=self.kind, seconds=0.0, test="", reason="made up")


async def test_a_task_is_judged_where_it_was_described() -> None:
    one, two = Describing(), Describing()
    pool = DevicePool([one, two])
    one.gate.clear()
    held = asyncio.create_task(pool.evaluate([request("b")]))
    await asyncio.sleep(0.01)
    await pool.describe(request("a"))
    one.gate.set()
    await held

    await pool.evaluate([request("a")])
    assert (one.tasks, two.tasks) == (["b"], ["a"])


async def test_a_task_goes_elsewhere_once_its_device_is_much_busier() -> None:
    one, two = Device(), Device()
    pool = DevicePool([one, two])
    await pool.evaluate([request("a")])
    one.gate.clear()
    held = [asyncio.create_task(pool.evaluate([request("a", number)])) for number in range(8)]
    await asyncio.sleep(0.01)

    assert len(one.tasks) > len(two.tasks) >= 1
    one.gate.set()
    await asyncio.gather(*held)


async def test_the_work_of_a_lost_device_is_done_by_the_other_until_it_is_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    one, two = Device(), Device()
    pool = DevicePool([one, two], clock=lambda: now)
    await pool.evaluate([request("a")])
    one.fails = True

    (result,) = await pool.evaluate([request("a")])
    assert result.feedback
    assert "device 0 is lost for 30 s: it fell off the bus" in capfd.readouterr().err
    one.fails = False
    await pool.evaluate([request("b")])
    assert two.tasks == ["a", "b"]

    now = 31.0
    await pool.evaluate([request("c")])
    assert one.tasks[-1] == "c"


async def test_a_task_that_fails_by_itself_takes_no_device_from_the_others(
    capfd: pytest.CaptureFixture[str],
) -> None:
    one, two = Device(), Device()
    one.cursed = two.cursed = {"bad"}
    pool = DevicePool([one, two])
    await pool.evaluate([request("a")])
    for _ in range(4):
        with pytest.raises(InfraError, match="holds the reference"):
            await pool.evaluate([request("bad")])
        await pool.evaluate([request("a")])
        two.tasks.clear()

    assert one.tasks.count("a") == 5
    assert capfd.readouterr().err == ""


async def test_a_device_that_fails_three_tasks_in_a_row_is_lost_although_its_service_runs(
    capfd: pytest.CaptureFixture[str],
) -> None:
    one, two = Device(), Device()
    pool = DevicePool([one, two])
    await pool.evaluate([request("a")])
    one.cursed = {"a", "b", "c"}
    for task in ("a", "b", "c"):
        await pool.evaluate([request(task)])

    assert "device 0 is lost for 30 s: the process that holds the reference ended" in capfd.readouterr().err
    await pool.evaluate([request("a")])
    assert two.tasks == ["a", "b", "c", "a"]


async def test_only_where_all_are_lost_the_caller_hears_of_it() -> None:
    one, two = Device(), Device()
    pool = DevicePool([one, two])
    await pool.open()
    one.fails = two.fails = True

    with pytest.raises(InfraError, match="fell off the bus"):
        await pool.evaluate([request("a")])


async def test_a_device_that_does_not_start_is_left_out_and_all_of_them_are_an_error() -> None:
    one, two = Device(), Device()
    one.fails = True
    pool = DevicePool([one, two])
    await pool.evaluate([request("a")])
    assert two.tasks == ["a"]

    two.fails = True
    with pytest.raises(InfraError, match="does not start"):
        await DevicePool([one, two]).open()


async def test_devices_of_two_kinds_are_refused() -> None:
    with pytest.raises(UserError, match="the devices differ: A100, H200"):
        await DevicePool([Device("H200"), Device("A100")]).open()


async def test_devices_that_describe_nothing_and_have_no_profiles_say_so() -> None:
    pool = DevicePool([Device(), Device()])
    with pytest.raises(UserError, match="describe no tasks; give --backend local"):
        await pool.describe(request("a"))
    profile = ProfileRequest(task=quick_task.TASK, source="", protocol=quick_task.PROTOCOL)
    with pytest.raises(UserError, match="have no profiles; give --backend local"):
        await pool.profile(profile)


@pytest.mark.slow
async def test_two_services_of_one_machine_share_the_work(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    members = [
        LocalBackend(device="cpu", state_dir=tmp_path, cores=[cores[number % len(cores)]], memory_gib=6)
        for number in range(2)
    ]
    pool = DevicePool(members)
    tasks = [
        replace(quick_task.TASK, name=f"t{n}", source=f"{quick_task.TASK.source}\n# {n}") for n in (1, 2)
    ]
    try:
        answers = await asyncio.gather(
            *(
                pool.evaluate(
                    [EvalRequest(task=task, source=quick_task.good("pool"), protocol=quick_task.PROTOCOL)]
                )
                for task in tasks
            )
        )
        report = await pool.describe(EvalRequest(task=tasks[0], source="", protocol=quick_task.PROTOCOL))
        status = await pool.status()
        affinities = [os.sched_getaffinity(member.pid) for member in members]
    finally:
        await pool.close()

    assert all(isinstance(result.outcome, Measured) for (result,) in answers)
    assert len({result.boot for (result,) in answers}) == 2
    assert report.inputs_bytes > 0
    assert status.detail.startswith("2 of 2 devices")
    assert affinities == [{cores[number % len(cores)]} for number in range(2)]


async def test_what_the_devices_do_is_counted_together() -> None:
    first, second = Device(), Device()
    first.phases, second.phases = {"timing": 1, "building": 2}, {"building": 1, "waiting": 1}
    pool = DevicePool([first, second])
    await pool.open()
    assert (await pool.status()).phases == {"timing": 1, "building": 3, "waiting": 1}
    await pool.close()
