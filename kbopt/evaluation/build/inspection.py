"""Inspects the machine code of candidates' builds, by `build.machine_code` in a sandbox. No torch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from kbopt.evaluation.build.building import Built
from kbopt.evaluation.messages import Arithmetic, Dissect
from kbopt.evaluation.sandbox.children import Child
from kbopt.evaluation.sandbox.forks import Role
from kbopt.evaluation.transport.channel import ChannelClosed, WireError
from kbopt.evaluation.transport.untrusted import CandidateForged, value_of

_LIMIT_S = 60.0
"""Seconds to disassemble a build."""


def arithmetic_of(child: Callable[[Built, Role], Child], built: Built) -> tuple[str, ...]:
    """Return the half-precision and TF32 instructions in the build, or none if it cannot be read.

    They are lines such as `half: HMMA.16816.F32 in kernel.so`. `child` starts a sandboxed process in a role.
    """
    with closing(child(built, "inspect")) as process:
        try:
            answer = process.ask(Dissect(folder=built.folder, on_cuda=True), _LIMIT_S)
            arithmetic: Arithmetic = value_of(Arithmetic, answer, "arithmetic")
            return arithmetic.found
        except (ChannelClosed, WireError, CandidateForged, TimeoutError):
            return ()
