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
from kbopt.core.evaluations import EvalRequest, Result, TaskReport
from kbopt.core.profile import Profiled, ProfileRequest
from kbopt.evaluation.sandbox import linux
from kbopt.evaluation.sandbox.memory import find_host
from kbopt.evaluation.server.service import MAX_CONCURRENT, Service


def serve(
    device: str, state_dir: Path, requests: TextIO, replies: TextIO, memory_gib: float | None = None
) -> None:
    """Answer requests until `requests` ends, then end the process. Answers come in the order of completion.

    Between them come lines that count the requests in each phase.

    A request's `kind` is `evaluate`, `describe` (of its task) or `profile`.
    """
    lock = threading.Lock()

    def reply(**message: object) -> None:
        with lock:
            replies.write(json.dumps(message, separators=(",", ":")) + "\n")
            replies.flush()

    try:
        service = Service(device, state_dir, find_host(memory_gib), lambda phases: reply(phases=phases))
    except UserError as error:
        reply(user_error=str(error))
        return
    except InfraError as error:
        reply(infra_error=str(error))
        return
    reply(ready=codec.encode(service.about()))

    def answer(number: int, kind: str, raw: Any) -> None:
        try:
            reply(id=number, answer=codec.encode(_answered(service, kind, raw)))
        except (UserError, codec.CodecError) as error:
            reply(id=number, user_error=str(error))
        except InfraError as error:
            reply(id=number, infra_error=str(error))
        except BaseException as error:
            # The caller has to hear of a defect of the service, or it would wait forever.
            reply(id=number, infra_error=f"{type(error).__name__}: {error}")
            raise

    with ThreadPoolExecutor(MAX_CONCURRENT) as pool:
        for line in requests:
            message = json.loads(line)
            pool.submit(answer, message["id"], message["kind"], message["request"])
        pool.shutdown(wait=False, cancel_futures=True)
        try:
            service.close()
        finally:
            os._exit(0)


def _answered(service: Service, kind: str, raw: Any) -> Result | TaskReport | Profiled:
    if kind == "profile":
        return service.profile(codec.decode(ProfileRequest, raw))
    request: EvalRequest = codec.decode(EvalRequest, raw)
    return service.describe(request) if kind == "describe" else service.evaluate(request)


def main(device: str, state_dir: Path, memory_gib: float | None = None) -> None:
    """Serve standard input and output. The process ends when its parent ends."""
    linux.die_with_parent()
    linux.hide_memory()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Stray prints go to standard error, so that they do not corrupt the protocol.
    serve(device, state_dir, sys.stdin, replies, memory_gib)
