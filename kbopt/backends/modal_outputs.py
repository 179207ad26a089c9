"""Reads the outputs of Modal calls without ever unpickling them.

In `FunctionCall.get` the container names the format of its output, and the SDK unpickles a pickle, also for
exceptions. But a container runs untrusted code. So its output is fetched raw, and only plain CBOR is
accepted. Only this module uses private parts of the SDK. Its version is pinned in pyproject.toml, and
tests/backends/test_modal_outputs.py fails when they change.
"""

from __future__ import annotations

from typing import Any, cast

import cbor2
import modal
from modal._functions import _FunctionCall, _Invocation
from modal._utils.async_utils import synchronize_api
from modal.exception import OutputExpiredError, RemoteError
from modal_proto import api_pb2

from kbopt.backends.modal_wire import Message

MAX_ERROR_CHARS = 2000
SUCCESS = api_pb2.GenericResult.GENERIC_STATUS_SUCCESS


async def _fetch(call: _FunctionCall[Any], timeout_s: float) -> api_pb2.FunctionGetOutputsResponse:
    invocation: _Invocation = call._invocation()  # type: ignore[no-untyped-call]
    return await invocation.pop_function_call_outputs(timeout=timeout_s, clear_on_success=False)


# Runs `_fetch` on the SDK's own event loop, to which its connections belong.
_fetch_on_sdk_loop = synchronize_api(_fetch)  # type: ignore[no-untyped-call]


async def read_output(call: modal.FunctionCall[Any], timeout_s: float) -> Message | None:
    """Return the call's answer, or None if there is none after `timeout_s` seconds.

    Raises RemoteError if the call failed or its answer is not a mapping in plain CBOR, and OutputExpiredError
    if Modal has dropped the answer.
    """
    response = await _fetch_on_sdk_loop.aio(call, timeout_s)
    if not response.outputs:
        if response.num_unfinished_inputs == 0:
            raise OutputExpiredError("Modal has dropped the result")
        return None
    output = response.outputs[0]
    if output.result.status != SUCCESS:
        status = api_pb2.GenericResult.GenericStatus.Name(output.result.status)
        raise RemoteError(f"{status}: {output.result.exception}"[:MAX_ERROR_CHARS])
    if output.data_format != api_pb2.DATA_FORMAT_CBOR or output.result.WhichOneof("data_oneof") != "data":
        form = api_pb2.DataFormat.Name(output.data_format)
        raise RemoteError(f"the container answered with {form}, not with plain CBOR; its answer was not read")
    try:
        answer = cbor2.loads(output.result.data)
    except (cbor2.CBORDecodeError, ValueError) as error:
        raise RemoteError(f"the container's answer is no CBOR: {error}") from None
    if not isinstance(answer, dict):
        raise RemoteError(f"the container answered with a {type(answer).__name__}, not with a mapping")
    return cast("Message", answer)
