"""The calls of Modal's protocol that an unmodified SDK makes for kbopt, each as one function.

A handler takes the plane, the container that asks (None for a client) and the request. A call without a
handler answers UNIMPLEMENTED with its own name; blob storage has none on purpose, because whether it
works inside a container without network is not known, so kbopt must not need it.
"""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from grpclib import GRPCError, Status
from modal_proto import api_grpc, api_pb2

from tests.support.modal_plane_pool import Pool
from tests.support.modal_plane_state import GPU_TYPES, App, Call, Container, Function, State

Handler = Callable[[Any, Container | None, Any], Awaitable[Message]]
HANDLERS: dict[str, Handler] = {}


def rpc(name: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        HANDLERS[name] = handler
        return handler

    return register


class Rpcs:
    """What the handlers work on."""

    def __init__(self, state: State, pool: Pool) -> None:
        self.state, self.pool = state, pool


def servicer(rpcs: Rpcs, container_id: str | None) -> api_grpc.ModalClientBase:
    """A service whose calls are attributed to one container, or to a client."""

    def answer(name: str) -> Callable[[Any, Any], Awaitable[None]]:
        handler = HANDLERS.get(name)

        async def call(_self: object, stream: Any) -> None:
            request = await stream.recv_message()
            if handler is None:
                raise GRPCError(Status.UNIMPLEMENTED, f"the loopback control plane has no {name}")
            container = rpcs.state.containers[container_id] if container_id else None
            await stream.send_message(await handler(rpcs, container, request))

        return call

    methods = {name: answer(name) for name in api_grpc.ModalClientBase.__abstractmethods__}
    return type("Servicer", (api_grpc.ModalClientBase,), methods)()


def handle_metadata(
    function: Function | None, definition: Any, app_id: str
) -> api_pb2.FunctionHandleMetadata:
    """What the SDK must know to call `definition`, with an entry for each method of a class."""
    metadata = api_pb2.FunctionHandleMetadata(app_id=app_id, **_signature(definition))
    for name, method in definition.method_definitions.items():
        metadata.method_handle_metadata[name].CopyFrom(
            api_pb2.FunctionHandleMetadata(
                app_id=app_id, is_method=True, use_method_name=name, **_signature(method)
            )
        )
    if function is not None:
        metadata.definition_id = function.definition_id
        metadata.class_parameter_info.CopyFrom(function.definition.class_parameter_info)
    return metadata


def _signature(definition: Any) -> dict[str, Any]:
    names = "function_name function_type function_schema supported_input_formats supported_output_formats"
    return {name: getattr(definition, name) for name in names.split()}


def function_data(definition: api_pb2.Function) -> api_pb2.FunctionData:
    """`definition` in the form in which the SDK learns how a function is configured."""
    return api_pb2.FunctionData(
        function_name=definition.function_name,
        autoscaler_settings=definition.autoscaler_settings,
        timeout_secs=definition.timeout_secs,
        ranked_functions=[api_pb2.FunctionData.RankedFunction(rank=0, function=definition)],
    )


def app_layout(state: State, app: App) -> api_pb2.AppLayout:
    """The objects that a container or a redeployment finds in `app`."""
    functions = [state.functions[function_id] for function_id in app.function_ids.values()]
    objects = [
        api_pb2.Object(
            object_id=function.id,
            function_handle_metadata=handle_metadata(function, function.definition, app.id),
        )
        for function in functions
    ]
    objects += [
        api_pb2.Object(object_id=class_id, class_handle_metadata=api_pb2.ClassHandleMetadata())
        for class_id in app.class_ids.values()
    ]
    known = {item.object_id for item in objects}
    needed = {d.object_id for function in functions for d in function.definition.object_dependencies}
    for object_id in sorted(needed - known):
        item = api_pb2.Object(object_id=object_id)
        if object_id.startswith("mo-"):
            item.mount_handle_metadata.content_checksum_sha256_hex = object_id
        objects.append(item)
    return api_pb2.AppLayout(objects=objects, function_ids=app.function_ids, class_ids=app.class_ids)


@rpc("ClientHello")
async def client_hello(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    return api_pb2.ClientHelloResponse()


@rpc("AuthTokenGet")
async def auth_token_get(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    return api_pb2.AuthTokenGetResponse(token="a.e30.b")


@rpc("EnvironmentGetOrCreate")
async def environment_get_or_create(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    settings = api_pb2.EnvironmentSettings(image_builder_version="2025.06")
    metadata = api_pb2.EnvironmentMetadata(name=request.deployment_name or "main", settings=settings)
    return api_pb2.EnvironmentGetOrCreateResponse(environment_id="en-1", metadata=metadata)


@rpc("AppCreate")
async def app_create(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    app = App(rpcs.state.new_id("ap"), request.description, request.app_state)
    rpcs.state.apps[app.id] = app
    return api_pb2.AppCreateResponse(app_id=app.id, app_page_url="http://loopback/app")


@rpc("AppGetByDeploymentName")
async def app_get_by_deployment_name(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    app = _running(rpcs.state, request.name)
    return api_pb2.AppGetByDeploymentNameResponse(app_id=app.id if app else "")


@rpc("AppGetLayout")
async def app_get_layout(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    return api_pb2.AppGetLayoutResponse(app_layout=app_layout(rpcs.state, rpcs.state.apps[request.app_id]))


@rpc("AppPublish")
async def app_publish(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    state, app = rpcs.state, rpcs.state.apps[request.app_id]
    changed = app.definitions != dict(request.definition_ids)
    app.state, app.definitions = request.app_state, dict(request.definition_ids)
    app.function_ids, app.class_ids = dict(request.function_ids), dict(request.class_ids)
    state.deployed[request.name] = app
    if changed:
        state.counts["deployments"] += 1
        for other in state.containers.values():  # a new version replaces the containers of the old one
            other.draining |= other.function.app is app
        state.notify()
    return api_pb2.AppPublishResponse(url="http://loopback/app", deployed_at=time.time())


@rpc("AppHeartbeat")
async def app_heartbeat(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    return Empty()


@rpc("AppGetLifecycle")
async def app_get_lifecycle(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    lifecycle = api_pb2.AppLifecycle(app_state=rpcs.state.apps[request.app_id].state)
    return api_pb2.AppGetLifecycleResponse(lifecycle=lifecycle)


@rpc("AppClientDisconnect")
async def app_client_disconnect(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    return Empty()


@rpc("AppStop")
async def app_stop(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    rpcs.pool.stop_app(rpcs.state.apps[request.app_id])
    return Empty()


@rpc("MountGetOrCreate")
async def mount_get_or_create(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    files = {file.filename: file.sha256_hex for file in request.files}
    content = repr((request.deployment_name, sorted(files.items()))).encode()
    mount_id = f"mo-{hashlib.sha256(content).hexdigest()[:12]}"
    rpcs.state.mounts[mount_id] = files
    metadata = api_pb2.MountHandleMetadata(content_checksum_sha256_hex=mount_id)
    return api_pb2.MountGetOrCreateResponse(mount_id=mount_id, handle_metadata=metadata)


@rpc("MountBatchedCheckExistence")
async def mount_batched_check_existence(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    missing = [digest for digest in request.sha256_hex_hashes if digest not in rpcs.state.files]
    return api_pb2.MountBatchedCheckExistenceResponse(missing_sha256_hex_hashes=missing)


@rpc("MountPutFile")
async def mount_put_file(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    if request.WhichOneof("data_oneof"):
        rpcs.state.files[request.sha256_hex] = request.data
    return api_pb2.MountPutFileResponse(exists=request.sha256_hex in rpcs.state.files)


@rpc("ImageGetOrCreate")
async def image_get_or_create(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    state = rpcs.state
    image_id = state.images.setdefault(
        request.image.SerializeToString(deterministic=True), f"im-{len(state.images) + 1}"
    )
    state.image_definitions[image_id] = request.image
    metadata = api_pb2.ImageMetadata(
        image_builder_version=request.builder_version, python_version_info="3.12.1"
    )
    done = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)
    return api_pb2.ImageGetOrCreateResponse(image_id=image_id, result=done, metadata=metadata)


@rpc("FunctionPrecreate")
async def function_precreate(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    function_id = request.existing_function_id or rpcs.state.new_id("fu")
    metadata = handle_metadata(None, request, request.app_id)
    return api_pb2.FunctionPrecreateResponse(function_id=function_id, handle_metadata=metadata)


@rpc("FunctionCreate")
async def function_create(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    state, definition = rpcs.state, request.function
    function_id = request.existing_function_id or state.new_id("fu")
    content = function_id.encode() + definition.SerializeToString(deterministic=True)
    function = Function(
        function_id, state.apps[request.app_id], definition, f"de-{hashlib.sha256(content).hexdigest()[:12]}"
    )
    state.functions[function_id] = function
    return api_pb2.FunctionCreateResponse(
        function_id=function_id,
        function=definition,
        function_data=function_data(definition),
        handle_metadata=handle_metadata(function, definition, request.app_id),
    )


@rpc("ClassCreate")
async def class_create(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    class_id = request.existing_class_id or rpcs.state.new_id("cs")
    return api_pb2.ClassCreateResponse(class_id=class_id, handle_metadata=api_pb2.ClassHandleMetadata())


def _running(state: State, name: str) -> App | None:
    app = state.deployed.get(name)
    return None if app is None or app.state == api_pb2.APP_STATE_STOPPED else app


def _lookup(state: State, request: Any, kind: str) -> tuple[App, str]:
    app = _running(state, request.app_name)
    if app is None:
        raise GRPCError(Status.NOT_FOUND, f"App '{request.app_name}' not found in environment 'main'.")
    object_id = getattr(app, kind).get(request.object_tag)
    if object_id is None:
        raise GRPCError(Status.NOT_FOUND, f"'{request.object_tag}' not found in app '{request.app_name}'")
    return app, object_id


@rpc("ClassGet")
async def class_get(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    _, class_id = _lookup(rpcs.state, request, "class_ids")
    return api_pb2.ClassGetResponse(class_id=class_id, handle_metadata=api_pb2.ClassHandleMetadata())


@rpc("FunctionGet")
async def function_get(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    app, function_id = _lookup(rpcs.state, request, "function_ids")
    function = rpcs.state.functions[function_id]
    metadata = handle_metadata(function, function.definition, app.id)
    return api_pb2.FunctionGetResponse(
        function_id=function_id, function=function_data(function.definition), handle_metadata=metadata
    )


@rpc("FunctionBindParams")
async def function_bind_params(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    """A variant with its own parameters and GPU; any other option is refused, because kbopt uses none."""
    state, options = rpcs.state, request.function_options
    base = state.functions[request.function_id]
    gpu_type = options.resources.gpu_config.gpu_type
    if gpu_type and gpu_type not in GPU_TYPES:
        raise GRPCError(Status.INVALID_ARGUMENT, f"Invalid GPU type: {gpu_type!r}")
    extra = {field.name for field, _ in options.ListFields()} - {"resources"}
    if extra:
        raise GRPCError(Status.UNIMPLEMENTED, f"the loopback control plane knows no options {sorted(extra)}")
    key = base.definition_id.encode() + request.SerializeToString(deterministic=True)
    function = state.variants.get(key)
    if function is None:
        definition = api_pb2.Function()
        definition.CopyFrom(base.definition)
        definition.resources.MergeFrom(options.resources)
        function = Function(
            state.new_id("fu"), base.app, definition, base.definition_id, request.serialized_params
        )
        state.variants[key] = state.functions[function.id] = function
    metadata = handle_metadata(function, function.definition, function.app.id)
    return api_pb2.FunctionBindParamsResponse(bound_function_id=function.id, handle_metadata=metadata)


@rpc("FunctionGetCurrentStats")
async def function_get_current_stats(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    function = rpcs.state.functions[request.function_id]
    containers = rpcs.state.containers_of(function)
    return api_pb2.FunctionStats(
        backlog=len(function.queue),
        num_total_tasks=len(containers),
        num_running_inputs=sum(len(container.inputs) for container in containers),
    )


@rpc("FunctionMap")
async def function_map(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    function = rpcs.state.functions[request.function_id]
    if function.app.state == api_pb2.APP_STATE_STOPPED:
        raise GRPCError(Status.FAILED_PRECONDITION, f"App {function.app.name} is stopped")
    call = Call(rpcs.state.new_id("fc"), function)
    rpcs.state.calls[call.id] = call
    rpcs.state.counts["calls"] += 1
    entries = [rpcs.pool.enqueue(call, item) for item in request.pipelined_inputs]
    inputs = [
        api_pb2.FunctionPutInputsResponseItem(idx=entry.item.idx, input_id=entry.id, input_jwt=entry.id)
        for entry in entries
    ]
    return api_pb2.FunctionMapResponse(
        function_call_id=call.id, function_call_jwt=call.id, pipelined_inputs=inputs
    )


@rpc("FunctionGetOutputs")
async def function_get_outputs(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    call = rpcs.state.calls[request.function_call_id]
    await rpcs.pool.wait_for(
        lambda: call.outputs or all(entry.done for entry in call.inputs.values()), request.timeout
    )
    outputs = [item for item in call.outputs if request.start_idx <= item.idx <= request.end_idx]
    unfinished = sum(not entry.done for entry in call.inputs.values())
    return api_pb2.FunctionGetOutputsResponse(
        outputs=outputs, last_entry_id=f"{len(call.outputs)}-0", num_unfinished_inputs=unfinished
    )


@rpc("FunctionCallCancel")
async def function_call_cancel(rpcs: Rpcs, container: Container | None, request: Any) -> Message:
    call = rpcs.state.calls[request.function_call_id]
    rpcs.state.counts["cancels"] += 1
    rpcs.pool.cancel(call, terminate=request.terminate_containers)
    return Empty()


@rpc("ContainerHello")
async def container_hello(rpcs: Rpcs, container: Container, request: Any) -> Message:
    return Empty()


@rpc("ContainerHeartbeat")
async def container_heartbeat(rpcs: Rpcs, container: Container, request: Any) -> Message:
    await rpcs.pool.wait_for(lambda: container.cancelled, 10)
    response = api_pb2.ContainerHeartbeatResponse()
    if container.cancelled:
        response.cancel_input_event.input_ids.extend(container.cancelled)
        container.cancelled.clear()
    return response


@rpc("ContainerStop")
async def container_stop(rpcs: Rpcs, container: Container, request: Any) -> Message:
    container.draining = True
    if not request.graceful:
        container.process.send_signal(signal.SIGTERM)
    rpcs.state.notify()
    return api_pb2.ContainerStopResponse()


@rpc("TaskResult")
async def task_result(rpcs: Rpcs, container: Container, request: Any) -> Message:
    container.crashed = request.result.status != api_pb2.GenericResult.GENERIC_STATUS_SUCCESS
    return Empty()


@rpc("FunctionGetDynamicConcurrency")
async def function_get_dynamic_concurrency(rpcs: Rpcs, container: Container, request: Any) -> Message:
    return api_pb2.FunctionGetDynamicConcurrencyResponse(concurrency=request.max_concurrency)


@rpc("FunctionGetInputs")
async def function_get_inputs(rpcs: Rpcs, container: Container, request: Any) -> Message:
    return await rpcs.pool.next_inputs(container, max(1, request.batch_max_size))


@rpc("FunctionPutOutputs")
async def function_put_outputs(rpcs: Rpcs, container: Container, request: Any) -> Message:
    for output in request.outputs:
        rpcs.pool.put_output(container, output)
    rpcs.state.notify()
    return Empty()
