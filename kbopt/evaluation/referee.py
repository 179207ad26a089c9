"""The trusted process of one task: holds the reference, the secret and the clock, and judges candidates.

Forked from the zygote once per task and device, kept for many candidates. It talks to the supervisor over
one channel, and to the candidate at hand over another, believing nothing that comes from there.
"""

from __future__ import annotations

import os
import random
import socket
from dataclasses import asdict
from typing import Any

import torch

from kbopt.core import codec
from kbopt.core.types import EvalProtocol
from kbopt.evaluation.admission import admit
from kbopt.evaluation.compile import toolchain
from kbopt.evaluation.judgement import Judgement, Verdict
from kbopt.evaluation.kernelbench import reference_stats
from kbopt.evaluation.link import CandidateDied, CandidateForged, CandidateRaised, Link
from kbopt.evaluation.player import Player
from kbopt.evaluation.reference import Reference, TaskError
from kbopt.evaluation.wire import Channel, Message

_REFERENCE_BUDGET_S = 1e9


def main(channel: Channel) -> None:
    """Admit the task of the first message, then answer one message after the other until hung up.

    With the first message come the two descriptors of a child that plays the reference.
    """
    start = channel.receive()
    torch.set_num_threads(start["threads"])
    try:
        courtroom = _Courtroom(start, channel.take_fds())
    except (TaskError, CandidateDied, CandidateRaised, CandidateForged) as error:
        channel.send({"task_error": str(error) or "the process that plays the reference died"})
        return
    channel.send({"admitted": True})
    while True:
        job = channel.receive()
        try:
            answer = courtroom.judge(job, channel.take_fds()) if job["op"] == "judge" else courtroom.time(job)
        except TaskError as error:
            channel.send({"task_error": str(error)})
            return
        channel.send(answer)


class _Courtroom:
    """A task that was admitted, with the child that plays its reference."""

    def __init__(self, start: Message, fds: list[int]) -> None:
        self._start = start
        self._reference = Reference(
            start["source"],
            start["precision"],
            torch.device(start["device"]),
            int.from_bytes(os.urandom(6), "big"),
            start["allow_tf32"],
        )
        self._admission = admit(self._reference)
        self._rng = random.SystemRandom()
        self._player = self._play(fds, start["warden"], _REFERENCE_BUDGET_S)
        self._player.build(f"{start['source']}\n\nModelNew = Model\n", "")

    def judge(self, job: Message, fds: list[int]) -> Message:
        protocol = codec.decode(EvalProtocol, job["protocol"])
        judgement = Judgement(
            self._reference,
            self._admission,
            protocol,
            self._player,
            lambda: self._play(fds, job["warden"], protocol.timeout_s),
            self._rng,
        )
        try:
            return _to_message(judgement.run(job["source"], job["setup"]))
        finally:
            # What torch keeps for this task's next candidate would be missing to another task's referee.
            if self._reference.device.type == "cuda":
                torch.cuda.empty_cache()

    def time(self, job: Message) -> Message:
        """The reference's times by KernelBench's protocol; empty where that cannot run the task."""
        start = self._start
        try:
            stats = reference_stats(start["source"], start["precision"], self._reference.device, job["timed"])
        except Exception:  # noqa: BLE001 - tasks with integer inputs fail there, because it casts them to float
            stats = {}
        return {"stats": stats}

    def _play(self, fds: list[int], warden: int, budget_s: float) -> Player:
        data_fd, control_fd = fds
        link = Link.over(socket.socket(fileno=data_fd), control_fd, budget_s)
        return Player(link, warden, self._reference, self._start["threads"], self._rng)


def _to_message(verdict: Verdict) -> Message:
    outcome: Any = codec.encode(verdict.outcome) if verdict.outcome is not None else None
    return {
        "outcome": outcome,
        "frames": verdict.frames,
        "spans": verdict.spans,
        "device_s": verdict.device_s,
        "busy_s": verdict.busy_s,
    }


def survey(channel: Channel) -> None:
    """Say which CUDA devices torch finds, unless only the CPU is asked for, and which compilers there are."""
    wanted = channel.receive()["device"]
    count = torch.cuda.device_count() if wanted != "cpu" and torch.cuda.is_available() else 0
    index = int(wanted.partition(":")[2] or 0)
    arch = ""
    if index < count:
        arch = "{}.{}".format(*torch.cuda.get_device_capability(index))
    names = [torch.cuda.get_device_name(number) for number in range(count)]
    channel.send({"cuda": names, "toolchain": asdict(toolchain.detect(arch=arch))})
