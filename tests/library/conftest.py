"""One open evaluator on the CPU, and a task with kernels of known quality."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kbopt import Evaluator
from kbopt.core.protocol import EvalProtocol


@pytest.fixture(scope="package")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluator]:
    patch = pytest.MonkeyPatch()
    patch.setenv("KBOPT_CACHE", str(tmp_path_factory.mktemp("cache")))
    protocol = EvalProtocol(trials=2, timed=20, timeout_s=30.0)
    with Evaluator(backend="local", device="cpu", protocol=protocol) as opened:
        yield opened
    patch.undo()
