import asyncio
from pathlib import Path

import pytest

from kbopt.core.errors import InfraError
from kbopt.evaluation.compile.pool import BuildPool, StepResult
from kbopt.evaluation.compile.store import Store
from kbopt.evaluation.compile.toolchain import Toolchain

TOOLCHAIN = Toolchain(
    **dict.fromkeys(("torch", "torch_dir", "cuda", "arch", "cxx", "cxx_version"), "x"),
    **dict.fromkeys(("nvcc", "nvcc_version", "python", "machine", "cxx_standard"), "x"),
)


class Steps:
    """Build steps that count how many run at once."""

    def __init__(self) -> None:
        self.started = self.running = self.most = 0

    async def __call__(self, directory: Path) -> StepResult:
        self.started += 1
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.05)
        self.running -= 1
        (directory / "a.so").write_text("binary")
        return StepResult(ok=True, log="")


async def test_equal_sources_in_flight_share_one_build(tmp_path: Path) -> None:
    pool, steps = BuildPool(Store(tmp_path), TOOLCHAIN, workers=4), Steps()
    builds = await asyncio.gather(*(pool.build("same", steps) for _ in range(5)))
    assert steps.started == 1
    assert {build.directory for build in builds} == {builds[0].directory}
    assert (builds[0].directory / "a.so").read_text() == "binary"


async def test_no_more_builds_run_than_workers(tmp_path: Path) -> None:
    pool, steps = BuildPool(Store(tmp_path), TOOLCHAIN, workers=2), Steps()
    await asyncio.gather(*(pool.build(f"source {n}", steps) for n in range(6)))
    assert (steps.started, steps.most) == (6, 2)


async def test_a_second_run_finds_the_build_on_disk(tmp_path: Path) -> None:
    steps = Steps()
    first = await BuildPool(Store(tmp_path), TOOLCHAIN).build("source", steps)
    second = await BuildPool(Store(tmp_path), TOOLCHAIN).build("source", steps)
    assert (first.cached, second.cached, second.seconds, steps.started) == (False, True, 0.0, 1)


async def test_a_refused_source_is_remembered_with_its_log(tmp_path: Path) -> None:
    async def refuse(directory: Path) -> StepResult:
        return StepResult(ok=False, log="error: expected ';' before 'lock'")

    pool = BuildPool(Store(tmp_path), TOOLCHAIN)
    await pool.build("bad", refuse)
    again = await pool.build("bad", Steps())
    assert (again.ok, again.cached, again.log) == (False, True, "error: expected ';' before 'lock'")


async def test_a_step_that_broke_down_leaves_nothing_behind(tmp_path: Path) -> None:
    async def break_down(directory: Path) -> StepResult:
        (directory / "half").write_text("half")
        raise InfraError("the child was lost")

    store = Store(tmp_path)
    pool = BuildPool(store, TOOLCHAIN)
    with pytest.raises(InfraError, match="the child was lost"):
        await pool.build("source", break_down)
    assert list((tmp_path / "staging").iterdir()) == []
    assert (await pool.build("source", Steps())).ok


async def test_the_build_survives_one_of_two_callers_and_dies_with_the_last(tmp_path: Path) -> None:
    pool, steps = BuildPool(Store(tmp_path), TOOLCHAIN), Steps()
    first = asyncio.create_task(pool.build("source", steps))
    second = asyncio.create_task(pool.build("source", steps))
    await asyncio.sleep(0.01)
    first.cancel()
    assert (await second).ok

    lonely = asyncio.create_task(pool.build("other", steps))
    await asyncio.sleep(0.02)
    lonely.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lonely
    await pool.close()
    assert Store(tmp_path).find(pool.key("other")) is None
