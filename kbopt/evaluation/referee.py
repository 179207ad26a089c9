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
from kbopt.evaluation.public_inputs import REPLY_LIMIT_BYTES, PublicInputs, converse
from kbopt.evaluation.reference import Reference, TaskError
from kbopt.evaluation.wire import SPIN_S, Channel, Message

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
    except torch.OutOfMemoryError as error:
        reason = "it does not fit into the device's memory, with a float64 answer to compare with"
        channel.send({"task_error": f"admission test 'the reference runs' failed: {reason}: {error}"})
        return
    channel.send({"admitted": True})
    operations = {"judge": courtroom.judge, "kernelbench": courtroom.kernelbench}
    while True:
        job = channel.receive()
        try:
            answer = operations[job["op"]](job, channel.take_fds())
            answer["free_share"] = courtroom.free_share()
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
        self._public: dict[int, PublicInputs | None] = {}
        self._stats: dict[int, dict[str, float]] = {}

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
        return _to_message(judgement.run(job["source"], job["setup"]))

    def kernelbench(self, job: Message, fds: list[int]) -> Message:
        """What a child says by KernelBench's protocol, see `converse`, with the reference's times as `stats`.

        No times where that protocol cannot run the task.
        """
        trials, timed = job["request"]["trials"], job["request"]["timed"]
        data_fd, control_fd, *memory_fd = fds
        os.close(control_fd)
        public = self._public_inputs(trials, job["drawn"], memory_fd)
        with socket.socket(fileno=data_fd) as sock:
            answer = converse(Channel(sock, REPLY_LIMIT_BYTES), job["request"], public, job["limit_s"])
        if timed not in self._stats:
            self._stats[timed] = self._reference_stats(public, timed)
        return {**answer, "stats": self._stats[timed]}

    def free_share(self) -> float:
        """Of the device's memory, after giving back what torch keeps for this task's next candidate."""
        if self._reference.device.type != "cuda":
            return 1.0
        torch.cuda.empty_cache()
        free_bytes, total_bytes = torch.cuda.mem_get_info(self._reference.device)
        return free_bytes / total_bytes

    def _public_inputs(
        self, trials: int, header: Message | None, memory_fd: list[int]
    ) -> PublicInputs | None:
        if trials not in self._public:
            loaded = header is not None and PublicInputs.load(header, memory_fd[0], self._reference.device)
            self._public[trials] = loaded or None
        for fd in memory_fd:
            os.close(fd)
        return self._public[trials]

    def _reference_stats(self, public: PublicInputs | None, timed: int) -> dict[str, float]:
        start = self._start
        inputs = public.of_timing if public is not None else None
        try:
            return reference_stats(start["source"], start["precision"], self._reference.device, timed, inputs)
        except Exception:  # noqa: BLE001 - tasks with integer inputs fail there, because it casts them to float
            return {}

    def _play(self, fds: list[int], warden: int, budget_s: float) -> Player:
        data_fd, control_fd = fds
        spin_s = SPIN_S if self._reference.device.type == "cuda" else 0.0
        link = Link.over(socket.socket(fileno=data_fd), control_fd, budget_s, spin_s)
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
