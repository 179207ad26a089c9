"""Containers of the loopback Modal plane: real processes of Modal's own container entry point.

A container finds its code only in the mounts that the SDK uploaded; the rest (torch, modal) it shares
with this interpreter. Deployed functions are retried for ever after a crash, with growing pauses.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from modal_proto import api_pb2

from tests.support.modal_plane_state import App, Call, Container, Function, Input, State

CHECKOUT = Path(__file__).resolve().parents[2]
RETRY_PAUSE_S = 0.2
MAX_RETRY_PAUSE_S = 2.0
POLL_S = 10.0
REAP_S = 0.25

HIDE_CHECKOUT = f"""import sys
sys.path[:] = [path for path in sys.path if path != {str(CHECKOUT)!r}]
"""
"""A `sitecustomize` for containers: an editable install must not stand in for a forgotten mount."""

TERMINATED = api_pb2.GenericResult.GENERIC_STATUS_TERMINATED


class Pool:
    """Starts, feeds and stops containers. `listen(container_id, path)` opens a socket for one."""

    def __init__(self, state: State, listen: Callable, layout: Callable[[App], api_pb2.AppLayout]) -> None:
        self.state, self._listen, self._layout = state, listen, layout
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, coroutine) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait_for(self, predicate: Callable[[], bool], timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(timeout_s, 0.001)), self.state.changed:
                await self.state.changed.wait_for(predicate)

    def enqueue(self, call: Call, item: api_pb2.FunctionPutInputsItem) -> Input:
        entry = Input(self.state.new_id("in"), call, item)
        call.inputs[entry.id] = entry
        call.function.queue.append(entry)
        self.scale(call.function)
        return entry

    def scale(self, function: Function) -> None:
        """Start what the backlog asks for, within `max_containers`, the capacity and the free GPUs."""
        state, settings = self.state, function.definition.autoscaler_settings
        if function.definition.resources.gpu_config.gpu_type in state.knobs.unavailable_gpus:
            return
        serving = [container for container in state.containers_of(function) if not container.draining]
        leaving = len(state.containers_of(function)) - len(serving)
        num_inputs = len(function.queue) + sum(len(container.inputs) for container in serving)
        wanted = -(-num_inputs // max(1, function.definition.max_concurrent_inputs))
        room = (settings.max_containers or 8) - leaving
        if state.knobs.capacity is not None:
            used = state.num_alive + sum(f.num_starting for f in state.functions.values())
            room = min(room, len(serving) + function.num_starting + state.knobs.capacity - used)
        for _ in range(min(wanted, room) - len(serving) - function.num_starting):
            function.num_starting += 1
            self.spawn(self._run_container(function))
        state.notify()

    async def _run_container(self, function: Function) -> None:
        try:
            await asyncio.sleep(self.state.knobs.start_delay_s)
            container = await self._start(function)
        finally:
            function.num_starting -= 1
        self.state.notify()
        await container.process.wait()
        container.server.close()
        await self._left(container)

    async def _start(self, function: Function) -> Container:
        state = self.state
        container_id = state.new_id("ta")
        folder = state.folder / container_id
        root = folder / "root"
        root.mkdir(parents=True)
        (root / "sitecustomize.py").write_text(HIDE_CHECKOUT)
        for mount_id in function.definition.mount_ids:
            for name, digest in state.mounts[mount_id].items():
                path = folder / name.lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(state.files[digest])
        arguments = api_pb2.ContainerArguments(
            task_id=container_id,
            function_id=function.id,
            app_id=function.app.id,
            function_def=function.definition,
            serialized_params=function.params,
            environment_name="main",
            app_layout=self._layout(function.app),
        )
        (folder / "arguments").write_bytes(arguments.SerializeToString())
        server = await self._listen(container_id, str(folder / "s"))
        env = {key: value for key, value in os.environ.items() if not key.startswith(("MODAL_", "PYTHON"))}
        env |= {
            "MODAL_SERVER_URL": f"unix://{folder / 's'}",
            "MODAL_TASK_ID": container_id,
            "MODAL_IS_REMOTE": "1",
            "MODAL_CONTAINER_ARGUMENTS_PATH": str(folder / "arguments"),
            "PYTHONPATH": str(root),
            "PYTHONUNBUFFERED": "1",
            "HOME": str(folder),
            "TMPDIR": str(folder),
        } | state.knobs.container_env
        entry = (
            ("-c", "raise SystemExit(1)")
            if state.knobs.crash_at_start
            else ("-m", "modal._container_entrypoint")
        )
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *entry, cwd=root, env=env, start_new_session=True, stdout=log, stderr=log
            )
        container = state.containers[container_id] = Container(
            container_id, function, folder, process, server
        )
        state.counts["cold_starts"] += 1
        state.counts["peak_containers"] = max(state.counts["peak_containers"], state.num_alive)
        return container

    async def _left(self, container: Container) -> None:
        """Give back what a container held, as Modal does, and start another where there is work."""
        function = container.function
        for entry in reversed(container.inputs.values()):
            entry.container = None
            function.queue.appendleft(entry)
        container.inputs.clear()
        if container.crashed or (container.process.returncode != 0 and not container.draining):
            function.num_crashes += 1
            await asyncio.sleep(min(RETRY_PAUSE_S * function.num_crashes, MAX_RETRY_PAUSE_S))
        self.scale(function)

    async def next_inputs(self, container: Container, limit: int) -> api_pb2.FunctionGetInputsResponse:
        """Up to `limit` inputs, none after a while, or the order to leave."""
        function = container.function
        window_s = function.definition.autoscaler_settings.scaledown_window or 60

        def idle_too_long() -> bool:
            return not container.inputs and time.monotonic() - container.idle_since >= window_s

        await self.wait_for(lambda: function.queue or container.draining or idle_too_long(), POLL_S)
        if container.draining or (not function.queue and idle_too_long()):
            container.draining = True
            leave = api_pb2.FunctionGetInputsItem(kill_switch=True)
            return api_pb2.FunctionGetInputsResponse(inputs=[leave])
        items = []
        while function.queue and len(items) < limit:
            entry = function.queue.popleft()
            entry.container = container
            container.inputs[entry.id] = entry
            items.append(
                api_pb2.FunctionGetInputsItem(
                    input_id=entry.id,
                    input=entry.item.input,
                    function_call_id=entry.call.id,
                    function_call_invocation_type=api_pb2.FUNCTION_CALL_INVOCATION_TYPE_ASYNC,
                )
            )
        return api_pb2.FunctionGetInputsResponse(inputs=items)

    def put_output(self, container: Container, output: api_pb2.FunctionPutOutputsItem) -> None:
        container.idle_since = time.monotonic()
        entry = container.inputs.pop(output.input_id, None)
        if entry is None:
            return
        knobs, data_format, result = self.state.knobs, output.data_format, output.result
        if knobs.expire_outputs:
            knobs.expire_outputs -= 1
            entry.done = True
            self.state.notify()
            return
        if knobs.hostile_outputs:
            knobs.hostile_outputs -= 1
            result = api_pb2.GenericResult(
                status=result.status, data=pickle.dumps(_CreatesAFile(knobs.hostile_path))
            )
            data_format = api_pb2.DATA_FORMAT_PICKLE
        self.state.counts[f"outputs_{api_pb2.DataFormat.Name(data_format)}"] += 1
        self._finish(entry, result, data_format)

    def _finish(self, entry: Input, result: api_pb2.GenericResult, data_format: int) -> None:
        entry.done = True
        entry.call.outputs.append(
            api_pb2.FunctionGetOutputsItem(
                result=result, idx=entry.item.idx, input_id=entry.id, data_format=data_format
            )
        )
        self.state.notify()

    def cancel(self, call: Call, *, terminate: bool) -> None:
        for entry in call.inputs.values():
            if entry.done:
                continue
            if entry.container is None:
                call.function.queue.remove(entry)
                self._terminate(entry, "Input was cancelled by user")
            elif terminate:
                entry.container.process.kill()
                del entry.container.inputs[entry.id]
                self._terminate(entry, "Input was cancelled by user")
            else:
                entry.container.cancelled.append(entry.id)
        self.state.notify()

    def stop_app(self, app: App) -> None:
        app.state = api_pb2.APP_STATE_STOPPED
        for function in self.state.functions.values():
            if function.app is not app:
                continue
            pending = list(function.queue)
            function.queue.clear()
            for container in self.state.containers_of(function):
                pending += container.inputs.values()
                container.inputs.clear()
                container.draining = True
                container.process.terminate()
            for entry in pending:
                self._terminate(entry, "App was stopped")
        self.state.notify()

    def _terminate(self, entry: Input, why: str) -> None:
        result = api_pb2.GenericResult(status=TERMINATED, exception=why)
        self._finish(entry, result, api_pb2.DATA_FORMAT_UNSPECIFIED)

    def kill_containers(self, gpu: str) -> int:
        """SIGKILL the containers with this GPU, with all of their process groups, as a lost machine does."""
        alive = [c for c in self.state.containers.values() if c.alive and c.gpu == gpu]
        for container in alive:
            os.killpg(container.process.pid, signal.SIGKILL)
        return len(alive)

    async def reap(self) -> None:
        """Let waiters look at the clock again: an idle container leaves without any other event."""
        while True:
            await asyncio.sleep(REAP_S)
            self.state.notify()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for container in self.state.containers.values():
            if container.alive:
                os.killpg(container.process.pid, signal.SIGKILL)
                await container.process.wait()
            container.server.close()


class _CreatesAFile:
    """Unpickling it runs code: it creates the file at `path`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self):
        return open, (self._path, "w")
