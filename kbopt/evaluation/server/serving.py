"""The service as a process: requests and answers are JSON lines."""

from __future__ import annotations

import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import Result, TaskReport
from kbopt.core.profile import Profiled, ProfileRequest
from kbopt.evaluation.sandbox import linux
from kbopt.evaluation.sandbox.memory import find_host
from kbopt.evaluation.server.service import MAX_CONCURRENT, Service
from kbopt.evaluation.service_messages import Failure, PhaseCounts, Question, Told


def serve(
    device: str, state_dir: Path, requests: TextIO, replies: TextIO, memory_gib: float | None = None
) -> None:
    """Answer requests until `requests` ends, then end the process. Answers come as they are ready.

    Between them come counts of the requests in each phase.
    """
    lock = threading.Lock()

    def tell(number: int, content: Any) -> None:
        line = json.dumps(codec.encode(Told(id=number, content=content)), separators=(",", ":"))
        with lock:
            replies.write(line + "\n")
            replies.flush()

    try:
        service = Service(
            device, state_dir, find_host(memory_gib), lambda phases: tell(0, PhaseCounts(phases=phases))
        )
    except (UserError, InfraError) as error:
        tell(0, Failure(reason=str(error), of_user=isinstance(error, UserError)))
        return
    tell(0, service.about())

    def answer(asked: Question) -> None:
        try:
            tell(asked.id, _answered(service, asked))
        except (UserError, InfraError) as error:
            tell(asked.id, Failure(reason=str(error), of_user=isinstance(error, UserError)))
        except BaseException as error:
            # The caller has to hear of a defect of the service, or it would wait forever.
            tell(asked.id, Failure(reason=f"{type(error).__name__}: {error}", of_user=False))
            raise

    with ThreadPoolExecutor(MAX_CONCURRENT) as pool:
        for line in requests:
            pool.submit(answer, codec.loads(Question, line))
        pool.shutdown(wait=False, cancel_futures=True)
        try:
            service.close()
        finally:
            os._exit(0)


def _answered(service: Service, asked: Question) -> Result | TaskReport | Profiled:
    if isinstance(asked.request, ProfileRequest):
        return service.profile(asked.request)
    return service.describe(asked.request) if asked.kind == "describe" else service.evaluate(asked.request)


def main(device: str, state_dir: Path, memory_gib: float | None = None) -> None:
    """Serve standard input and output. The process ends when its parent ends."""
    linux.die_with_parent()
    linux.hide_memory()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Stray prints go to standard error, so that they do not corrupt the protocol.
    serve(device, state_dir, sys.stdin, replies, memory_gib)
