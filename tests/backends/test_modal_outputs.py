"""The one module that uses private parts of Modal's SDK: these tests fail when the parts change."""

from __future__ import annotations

import modal
import pytest
from modal.exception import OutputExpiredError, RemoteError

from kbopt.backends.modal_client import ensure_deployed
from kbopt.backends.modal_outputs import read_output


@pytest.fixture
def describe(plane):
    app = ensure_deployed()
    return modal.Cls.from_name(app, "Evaluator").with_options(gpu="L40S")(lane="shared").describe


async def test_an_answer_arrives_as_plain_cbor(plane, describe):
    before = plane.counters()
    call = await describe.spawn.aio({"owner": "a driver"})
    assert (await read_output(call, 60.0))["pages"] == 0
    counters = plane.counters()
    assert counters["outputs_DATA_FORMAT_CBOR"] == before.get("outputs_DATA_FORMAT_CBOR", 0) + 1
    assert "outputs_DATA_FORMAT_PICKLE" not in counters


async def test_a_pickle_from_a_hostile_container_is_refused_and_never_loaded(plane, describe, tmp_path):
    plane.set(hostile_outputs=1, hostile_path=str(tmp_path / "loaded"))
    call = await describe.spawn.aio({"owner": "a driver"})
    with pytest.raises(RemoteError, match="answered with DATA_FORMAT_PICKLE, not with plain CBOR"):
        await read_output(call, 60.0)
    assert not (tmp_path / "loaded").exists()


async def test_the_sdks_own_way_would_have_loaded_that_pickle(plane, describe, tmp_path):
    plane.set(hostile_outputs=1, hostile_path=str(tmp_path / "loaded"))
    call = await describe.spawn.aio({"owner": "a driver"})
    (await call.get.aio(timeout=60)).close()
    assert (tmp_path / "loaded").exists()


async def test_a_dropped_answer_is_told_from_one_that_is_late(plane, describe):
    plane.set(expire_outputs=1)
    call = await describe.spawn.aio({"owner": "a driver"})
    with pytest.raises(OutputExpiredError):
        await read_output(call, 2.0)
    plane.set(unavailable_gpus=["T4"])
    app = ensure_deployed()
    late = modal.Cls.from_name(app, "Evaluator").with_options(gpu="T4")(lane="shared").describe
    call = await late.spawn.aio({"owner": "a driver"})
    assert await read_output(call, 0.1) is None
    await call.cancel.aio()
    with pytest.raises(RemoteError, match="GENERIC_STATUS_TERMINATED: Input was cancelled"):
        await read_output(call, 60.0)


async def test_an_exception_in_the_container_arrives_as_text(plane, describe):
    call = await describe.spawn.aio({"no owner": ""})
    with pytest.raises(RemoteError, match=r"GENERIC_STATUS_FAILURE: KeyError\('owner'\)"):
        await read_output(call, 60.0)
