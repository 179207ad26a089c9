"""The container's part without Modal around it, with a real evaluation service on the CPU."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from kbopt.backends.modal_container import ModalContainer
from kbopt.backends.modal_wire import ContainerInfo, pack, unpack
from kbopt.core import codec
from kbopt.core.errors import InfraError
from kbopt.core.evaluations import Result
from kbopt.core.outcomes import CompileFailed
from tests.support.quick_task import HANGS, SYNTAX_ERROR, request

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def container(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ModalContainer]:
    container = ModalContainer(device="cpu", state_dir=tmp_path_factory.mktemp("state"))
    await container.open()
    yield container
    await container.close()


def message(data: bytes, *, call: str, page: int = 0, pages: int = 1, owner: str = "driver") -> dict:
    return {"owner": owner, "call": call, "page": page, "pages": pages, "data": data}


def head(reply: dict) -> ContainerInfo:
    return codec.decode(ContainerInfo, reply["head"])


async def test_the_first_owner_stays_the_starter(container):
    assert container.describe("first").starter == "first"
    assert container.describe("second").starter == "first"


async def test_a_batch_is_answered_with_the_results_in_order(container):
    (data,) = pack((request(SYNTAX_ERROR), request(f"{SYNTAX_ERROR}# two")))
    reply = await container.run_batch(message(data, call="a batch"))
    results = unpack(tuple[Result, ...], [reply["page"]])
    assert [type(result.outcome) for result in results] == [CompileFailed, CompileFailed]
    assert {result.boot for result in results} == {head(reply).boot}


async def test_the_same_request_of_the_same_owner_is_evaluated_once(container):
    (data,) = pack((request(f"{SYNTAX_ERROR}# once"),))
    before = container.describe("driver").num_evaluations
    await asyncio.gather(*(container.run_batch(message(data, call=f"again {n}")) for n in range(3)))
    assert container.describe("driver").num_evaluations == before + 1
    await container.run_batch(message(data, call="other", owner="another driver"))
    assert container.describe("driver").num_evaluations == before + 2


async def test_a_repeat_is_an_evaluation_of_its_own(container):
    before = container.describe("driver").num_evaluations
    for repeat in (1, 2, 2):
        (data,) = pack((request(SYNTAX_ERROR, repeat=repeat),))
        await container.run_batch(message(data, call=f"repeat {repeat}"))
    assert container.describe("driver").num_evaluations == before + 2


async def test_a_batch_whose_first_page_went_to_another_container_is_refused(container):
    with pytest.raises(InfraError, match="batch torn arrived incomplete"):
        await container.run_batch(message(b"the end", call="torn", page=1, pages=2))


async def test_a_page_that_was_never_written_is_refused(container):
    with pytest.raises(InfraError, match="no page 1 of batch unknown"):
        container.read_page(message(b"", call="unknown", page=1))


async def test_a_container_without_its_gpu_says_so_and_is_broken(tmp_path):
    container = ModalContainer(device="cuda:7", state_dir=tmp_path)
    await container.open()
    assert container.broken
    (data,) = pack((request(SYNTAX_ERROR),))
    reply = await container.run_batch(message(data, call="no gpu"))
    assert "it has no usable GPU" in head(reply).failure
    assert reply["pages"] == 0


async def test_a_lost_service_fails_the_batch_and_breaks_the_container(tmp_path):
    container = ModalContainer(device="cpu", state_dir=tmp_path)
    before = children()
    await container.open()
    (service,) = children() - before
    (data,) = pack((request(HANGS),))
    batch = asyncio.create_task(container.run_batch(message(data, call="lost")))
    await asyncio.sleep(0.5)
    os.kill(service, signal.SIGKILL)
    assert "the evaluation service was lost" in head(await batch).failure
    assert container.broken
    await container.close()


def children() -> set[int]:
    """The evaluation services that this process started."""
    path = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    pids = {int(pid) for pid in path.read_text().split()}
    return {pid for pid in pids if b"kbopt.evaluation" in Path(f"/proc/{pid}/cmdline").read_bytes()}
