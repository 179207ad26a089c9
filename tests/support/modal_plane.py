"""A loopback Modal control plane for tests: an unmodified SDK in front, real container processes behind.

`with ModalPlane() as plane:` starts one as a process of its own; `plane.env` points clients at it. Or run
`python -m tests.support.modal_plane` from the checkout: it prints the client environment as JSON and serves
until its stdin ends. It models Modal's scheduling as documented; only real Modal proves real Modal.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.modal_plane_state import Knobs

CHECKOUT = Path(__file__).resolve().parents[2]
STOP_TIMEOUT_S = 20.0


class ModalPlane:
    """A running plane. Keyword arguments are fields of `modal_plane_state.Knobs`."""

    def __init__(self, **knobs: Any) -> None:
        self._knobs = {"container_env": {"KBOPT_MODAL_DEVICE": "cpu"}} | knobs

    def __enter__(self) -> ModalPlane:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.modal_plane", "--knobs", json.dumps(self._knobs)],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.env: dict[str, str] = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()

    def set(self, **knobs: Any) -> None:
        self._ask(do="set", knobs=knobs)

    def reset(self) -> None:
        """All knobs as they were when this plane started."""
        self.set(**dataclasses.asdict(Knobs(**self._knobs)))

    def counters(self) -> dict[str, Any]:
        """Numbers of `cold_starts`, `peak_containers`, `calls`, `cancels` and `deployments`, `rpcs` by name,
        how many containers are `alive`, in all and by GPU, and how many calls are `running` in them.
        """
        return self._ask(do="counters")

    def kill_containers(self, gpu: str) -> int:
        """SIGKILL the containers with this GPU, as a lost machine would; returns how many there were."""
        return self._ask(do="kill_containers", gpu=gpu)["killed"]

    def deployed(self, app: str) -> dict[str, Any]:
        """What was deployed as `app`: `function` as protobuf's JSON, `image` as its Dockerfile's lines."""
        return self._ask(do="deployed", app=app)

    def mounted_files(self) -> list[str]:
        """The names of all files that clients uploaded for containers."""
        return self._ask(do="mounted")["files"]

    def _ask(self, **command: Any) -> dict[str, Any]:
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the loopback plane left with exit status {self._process.wait()}")
        return json.loads(line)


@functools.cache
def shared_plane() -> ModalPlane:
    """The one plane of this process: Modal's SDK keeps one client per process, with one address."""
    plane = ModalPlane()
    plane.__enter__()
    atexit.register(plane.__exit__)
    return plane


if __name__ == "__main__":
    from tests.support.modal_plane_server import main

    main()
