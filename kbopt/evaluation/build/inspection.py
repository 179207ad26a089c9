"""Inspects the machine code of candidates' builds, by `build.machine_code` in a sandbox. No torch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from kbopt.evaluation.build.building import Built
from kbopt.evaluation.messages import Dissect
from kbopt.evaluation.sandbox.children import Child
from kbopt.evaluation.transport.channel import ChannelClosed, WireError
from kbopt.evaluation.transport.untrusted import CandidateForged, value_of

_LIMIT_S = 60.0
"""Seconds to disassemble a build."""


class Inspections:
    """Keeps the findings for each build's folder: lines such as `half: HMMA.16816.F32 in kernel.so`.

    `child` starts a sandboxed process in a role.
    """

    def __init__(self, child: Callable[[Built, str], Child]) -> None:
        self._child = child
        self._known: dict[str, list[str]] = {}

    def of(self, built: Built) -> list[str]:
        """Return the half-precision and TF32 instructions in the build, or none if it cannot be read."""
        if built.folder not in self._known:
            self._known[built.folder] = self._inspected(built)
        return self._known[built.folder]

    def _inspected(self, built: Built) -> list[str]:
        with closing(self._child(built, "inspect")) as child:
            try:
                reply = child.ask(Dissect(folder=built.folder, on_cuda=True), _LIMIT_S)
                return list(value_of(tuple[str, ...], reply.get("arithmetic"), "arithmetic"))
            except (ChannelClosed, WireError, CandidateForged, TimeoutError):
                return []
