"""The trusted process of one task: holds the reference, the secret and the clock, and judges candidates.

Forked from the zygote once per task and device, kept for many candidates. It talks to the supervisor over
one channel, and to the candidate at hand over another, believing nothing that comes from there.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import torch

from kbopt.core import codec
from kbopt.core.types import EvalProtocol
from kbopt.evaluation.admission import admit
from kbopt.evaluation.judgement import Judgement, Verdict
from kbopt.evaluation.kernelbench import reference_stats
from kbopt.evaluation.link import Link
from kbopt.evaluation.reference import Reference, TaskError
from kbopt.evaluation.wire import Channel, Message


def main(channel: Channel) -> None:
    """Admit the task of the first message, then judge one candidate per message."""
    request = channel.receive()
    torch.set_num_threads(request["threads"])
    try:
        reference = Reference(
            request["source"],
            request["precision"],
            torch.device(request["device"]),
            int.from_bytes(os.urandom(6), "big"),
        )
        admission = admit(reference)
    except TaskError as error:
        channel.send({"task_error": str(error)})
        return
    channel.send({"admitted": True})
    while True:
        job = channel.receive()
        if job["op"] == "kernelbench":
            stats = reference_stats(request["source"], request["precision"], reference.device, job["timed"])
            channel.send({"stats": stats})
            continue
        data_fd, control_fd = channel.take_fds()
        protocol = codec.decode(EvalProtocol, job["protocol"])
        link = Link.over(socket.socket(fileno=data_fd), control_fd, protocol.timeout_s)
        judgement = Judgement(reference, admission, protocol, link, job["warden"], request["threads"])
        try:
            verdict = judgement.run(job["source"])
        except TaskError as error:
            channel.send({"task_error": str(error)})
            return
        finally:
            judgement.close()
            link.close()
        channel.send(_to_message(verdict))


def _to_message(verdict: Verdict) -> Message:
    outcome: Any = codec.encode(verdict.outcome) if verdict.outcome is not None else None
    return {
        "outcome": outcome,
        "frames": verdict.frames,
        "spans": verdict.spans,
        "device_s": verdict.device_s,
        "busy_s": verdict.busy_s,
    }


def probe(channel: Channel) -> None:
    """Say which CUDA devices torch finds."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    channel.send({"cuda": [torch.cuda.get_device_name(index) for index in range(count)]})
