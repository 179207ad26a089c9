"""The loopback Modal plane's process: a grpclib server, its containers, and a control line on stdin.

The first line on stdout is the client environment as JSON. Each JSON line on stdin is a command and gets
one JSON line back; at the end of stdin the plane kills its containers and leaves.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import grpclib.server
from google.protobuf.json_format import MessageToDict
from grpclib import GRPCError, Status
from grpclib.events import RecvRequest
from grpclib.events import listen as on_event
from modal._utils.grpc_utils import custom_detail_codec

from tests.support.modal_plane_pool import Pool
from tests.support.modal_plane_rpcs import Rpcs, app_layout, servicer
from tests.support.modal_plane_state import Knobs, State

TOKEN = ("ak-loopback", "as-loopback")


class Plane:
    """One control plane on 127.0.0.1, its containers and what it counted."""

    def __init__(self, folder: Path, knobs: Knobs) -> None:
        self.state = State(folder, knobs)
        self.pool = Pool(self.state, self._listen_for_container, lambda app: app_layout(self.state, app))
        self._rpcs = Rpcs(self.state, self.pool)

    async def start(self) -> dict[str, str]:
        """Listen; the result is the environment that points an SDK here."""
        self._server = self._new_server(None)
        await self._server.start("127.0.0.1", 0)
        port = self._server._server.sockets[0].getsockname()[1]
        self._reaper = asyncio.ensure_future(self.pool.reap())
        return {
            "MODAL_SERVER_URL": f"http://127.0.0.1:{port}",
            "MODAL_TOKEN_ID": TOKEN[0],
            "MODAL_TOKEN_SECRET": TOKEN[1],
            "MODAL_CONFIG_PATH": str(self.state.folder / "absent.toml"),
            "MODAL_DISABLE_API_PROXY": "1",
            "MODAL_LOGS_TIMEOUT": "1",
        }

    async def stop(self) -> None:
        self._reaper.cancel()
        await self.pool.close()
        self._server.close()

    def command(self, line: str) -> dict[str, Any]:
        match json.loads(line):
            case {"do": "set", "knobs": knobs}:
                for name, value in knobs.items():
                    setattr(self.state.knobs, name, value)
                for function in list(self.state.functions.values()):
                    self.pool.scale(function)
                return {}
            case {"do": "counters"}:
                counts = {"cold_starts": 0, "peak_containers": 0, "calls": 0, "deployments": 0, "cancels": 0}
                gpus = Counter(
                    container.gpu for container in self.state.containers.values() if container.alive
                )
                running = sum(len(container.inputs) for container in self.state.containers.values())
                alive = {"alive": gpus.total(), "alive_by_gpu": gpus, "running": running}
                return {**counts, **self.state.counts, **alive, "rpcs": self.state.rpcs}
            case {"do": "kill_containers", "gpu": gpu}:
                return {"killed": self.pool.kill_containers(gpu)}
            case {"do": "deployed", "app": name}:
                return self._deployed(name)
            case {"do": "mounted"}:
                return {"files": sorted({name for files in self.state.mounts.values() for name in files})}
            case unknown:
                raise ValueError(f"unknown command {unknown}")

    def _deployed(self, name: str) -> dict[str, Any]:
        app = self.state.deployed[name]
        (function_id,) = app.function_ids.values()
        definition = self.state.functions[function_id].definition
        image = self.state.image_definitions[definition.image_id]
        layers = [image]
        while layers[-1].base_images:
            (base,) = layers[-1].base_images
            layers.append(self.state.image_definitions[base.image_id])
        return {
            "function": MessageToDict(definition, preserving_proto_field_name=True),
            "image": [command for layer in reversed(layers) for command in layer.dockerfile_commands],
        }

    def _new_server(self, container_id: str | None) -> grpclib.server.Server:
        server = grpclib.server.Server(
            [servicer(self._rpcs, container_id)], status_details_codec=custom_detail_codec
        )

        async def check(event: RecvRequest) -> None:
            name = event.method_name.rsplit("/", 1)[1]
            self.state.rpcs[f"{'container' if container_id else 'client'}:{name}"] += 1
            token = (event.metadata.get("x-modal-token-id"), event.metadata.get("x-modal-token-secret"))
            if container_id is None and token != TOKEN:
                raise GRPCError(Status.UNAUTHENTICATED, "Token ID is malformed or unknown")

        on_event(server, RecvRequest, check)
        return server

    async def _listen_for_container(self, container_id: str, path: str) -> grpclib.server.Server:
        server = self._new_server(container_id)
        await server.start(path=path)
        return server


async def serve(knobs: Knobs) -> None:
    with tempfile.TemporaryDirectory(prefix="modal-plane-", ignore_cleanup_errors=True) as folder:
        plane = Plane(Path(folder), knobs)
        env = await plane.start()
        loop = asyncio.get_running_loop()
        commands = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, commands.feed_eof)
        print(json.dumps(env), flush=True)
        try:
            while line := await commands.readline():
                print(json.dumps(plane.command(line.decode())), flush=True)
        finally:
            await plane.stop()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--knobs", type=json.loads, default={}, help="a JSON object of Knobs fields")
    knobs = Knobs(**parser.parse_args(argv).knobs)
    asyncio.run(serve(knobs))
