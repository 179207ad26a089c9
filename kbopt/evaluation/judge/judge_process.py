"""The trusted process of one task: holds the reference, secret seeds and the clock, and judges candidates.

It is forked once per task and device, and kept for many candidates. It talks to the supervisor over one
channel and to each worker over another. It believes nothing that a worker says.
"""

from __future__ import annotations

import faulthandler
import os
import random
import socket
import time
from statistics import median

import torch

from kbopt.core.outcomes import Stage
from kbopt.core.workloads import judged_of
from kbopt.evaluation import messages
from kbopt.evaluation.judge import roofline
from kbopt.evaluation.judge.admission import Admission, admit
from kbopt.evaluation.judge.cpu_worker import CpuWorker
from kbopt.evaluation.judge.faults import Faults, about
from kbopt.evaluation.judge.gpu_worker import GpuWorker
from kbopt.evaluation.judge.judgement import Judgement
from kbopt.evaluation.judge.link import Link
from kbopt.evaluation.judge.reference import Reference
from kbopt.evaluation.judge.rehearsal import rehearse
from kbopt.evaluation.judge.task_code import ReferenceWorkerDied, TaskError, TaskTooLarge, is_of_task
from kbopt.evaluation.judge.worker import Worker
from kbopt.evaluation.messages import Answer, FromJudge, ToJudge
from kbopt.evaluation.sandbox import linux
from kbopt.evaluation.sandbox.memory import is_out_of_memory
from kbopt.evaluation.timing import samples
from kbopt.evaluation.timing.pace import Pace
from kbopt.evaluation.transport.channel import SPIN_S, Channel
from kbopt.evaluation.worker_messages import Operation

_REFERENCE_BUDGET_S = 1e9
"""Seconds that the reference's worker may take in all. It is no limit: the supervisor limits each answer of
the judge instead."""
_ROOM_S = 2.0
"""Seconds at most to wait until the driver has freed the memory of a candidate that was killed."""
_ROOM_LOOK_S = 0.01
"""Seconds between two looks at the device's free memory."""
_NUM_REFERENCE_CALLS = 8
"""Calls whose median is a task's time in the table of admitted tasks."""
_CONTEXTS_BYTES = 2 * 2**30
"""An allowance in bytes for the CUDA contexts of the judge, the reference's worker and the candidate's."""
_INPUTS_AT_ONCE = 5
"""Sets of inputs that admission holds at once: drawn, copied, in float64 (which counts twice), and in the
reference's worker."""
_OUTPUTS_AT_ONCE = 6
"""Sets of outputs that admission holds at once: the answer, its repetition or a trivial one, the answer in
float64 (which counts twice), the worker's answer, and what a comparison takes."""
_PASSES_AT_ONCE = 3
"""Sets of intermediate tensors that admission holds at once: at the task's precision in one process, and in
float64 (which counts twice)."""


def main(channel: Channel) -> None:
    """Answer the supervisor's messages until it hangs up. The first message is `Start`.

    After a fault of the task the process answers with TaskFault and ends.
    """
    faulthandler.enable()  # The task's own code may crash, and the log then has the line.
    start: messages.Start = channel.receive(messages.Start)
    process = _JudgeProcess(start, channel)
    channel.send(Answer(content=messages.Done()))
    while True:
        job: ToJudge = channel.receive(ToJudge)
        try:
            content = process.answer(job, channel.take_fds())
        except TaskError as error:
            fault = messages.TaskFault(
                reason=str(error),
                no_memory=isinstance(error, TaskTooLarge),
                died=isinstance(error, ReferenceWorkerDied),
            )
            channel.send(Answer(content=fault))
            return
        channel.send(Answer(content=content, free_share=process.free_share()))


class _JudgeProcess:
    """A task and the worker of its reference.

    The supervisor asks for `Construct`, `Weigh`, `Size` and `Admit` in this order, and then for verdicts.
    Before `Construct` the device is hardly used.
    """

    def __init__(self, start: messages.Start, channel: Channel) -> None:
        self._start = start
        self._channel = channel
        self._fds = channel.take_fds()
        self._faults = Faults(torch.device(start.device), start.memory_bytes)
        self._device = torch.device(start.device)
        self._rng = random.SystemRandom()
        self._protocol = start.protocol
        self._reference: Reference
        self._admitted: list[tuple[Reference, Admission]] = []
        self._worker: Worker
        self._pace = Pace()
        self._inputs_bytes = 0
        self._needed = 0.0
        self._had = 0.0
        torch.set_num_threads(start.threads)
        if self._device.type == "cuda":
            rehearse(self._protocol, self._device)
        else:
            # CUDA does not survive this limit (decision 44).
            linux.limit_address_space(start.memory_bytes)

    def answer(self, job: ToJudge, fds: list[int]) -> FromJudge:
        """Answer one message. Raises TaskError.

        It is TaskTooLarge for every want of memory, and it is a TaskError whatever the task's code raises,
        also where nothing below has typed it.
        """
        try:
            match job:
                case messages.Construct():
                    return self._construct()
                case messages.Weigh():
                    return self._weigh()
                case messages.Size():
                    return self._size()
                case messages.Admit():
                    return self._admit()
                case messages.Describe():
                    return self._describe()
                case messages.TimeAgain():
                    return self._time_again(job, fds)
                case messages.Judge():
                    return self._judge(job, fds)
        except TaskError:
            raise
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
            if isinstance(error, RuntimeError | MemoryError) and is_out_of_memory(text):
                raise self._faults.too_large(text) from None
            if is_of_task(error):
                raise TaskError(
                    f"admission test 'the reference runs' failed: its code raised {text}"
                ) from None
            raise

    def _construct(self) -> messages.Done:
        start = self._start
        with self._faults.typed():
            seed = int.from_bytes(os.urandom(6), "big")
            self._reference = Reference(start.source, self._protocol, self._device, seed)
        return messages.Done()

    def _weigh(self) -> messages.Sizes:
        """Draw inputs of each workload once, and return how large the task is. Raises TaskError."""
        with self._faults.typed():
            for reference in self._references:
                with about(reference):
                    draw = reference.draw(self._rng.getrandbits(62))
                reference.form(draw)
                reference.require_form_of(self._reference)
                self._inputs_bytes = max(self._inputs_bytes, draw.size_bytes)
                del draw
        return self._sizes()

    def _size(self) -> messages.DeviceShare:
        """Return the share of the device's memory that admission takes; 0 on a CPU.

        The reference runs once on each workload. The largest workload counts, because workloads are admitted
        one after the other.
        """
        if self._device.type != "cuda":
            return messages.DeviceShare(share=0.0)
        with self._faults.typed():
            needed_bytes = max(map(self._bytes_to_admit, self._references))
        _, total_bytes = torch.cuda.mem_get_info(self._device)
        self._needed = needed_bytes / total_bytes
        return messages.DeviceShare(share=self._needed)

    def _bytes_to_admit(self, reference: Reference) -> int:
        torch.cuda.reset_peak_memory_stats(self._device)
        with about(reference):
            draw = reference.draw(self._rng.getrandbits(62))
            output = reference.run(draw.arguments())
        weights_bytes = sum(t.nbytes for t in reference.parameters().values())
        passing_bytes = torch.cuda.max_memory_allocated(self._device)
        return (
            _INPUTS_AT_ONCE * draw.size_bytes
            + _OUTPUTS_AT_ONCE * output.size_bytes
            + _PASSES_AT_ONCE * max(0, passing_bytes - draw.size_bytes - output.size_bytes)
            + 2 * weights_bytes
            + _CONTEXTS_BYTES
        )

    def _admit(self) -> messages.Ready:
        """Admit the task on each workload, and start the reference's worker. Raises TaskError."""
        start = self._start
        self._await_free(self._needed)
        with self._faults.typed():
            for reference in self._references:
                with about(reference):
                    self._admitted.append((reference, admit(reference)))
            self._worker = self._reference_worker(self._fds, start.init)
        if self._device.type == "cuda":
            # Measured once, and while no candidate is there.
            roofline.device_peaks(str(self._device), roofline.arithmetic_of(self._reference))
        self._needed = self._needed_share()
        return messages.Ready(needed_share=self._needed, sizes=self._sizes())

    def _sizes(self) -> messages.Sizes:
        """Return the bytes of the task's data, and the most that this process has held at a time.

        The latter includes the input buffers, which are shared memory.
        """
        reference = self._reference
        parameters = sum(t.nbytes for t in reference.parameters().values())
        return messages.Sizes(
            inputs_bytes=self._inputs_bytes,
            outputs_bytes=max(one.output_bytes for one in self._references) or self._inputs_bytes,
            parameters_bytes=parameters,
            peak_bytes=linux.peak_bytes(),
        )

    @property
    def _references(self) -> tuple[Reference, ...]:
        return self._reference, *self._reference.others

    def _needed_share(self) -> float:
        """Return the share of the device's memory that judging a candidate takes beyond what is held now.

        It is a generous estimate, and 0 on a CPU.
        """
        if self._device.type != "cuda":
            return 0.0
        _, total_bytes = torch.cuda.mem_get_info(self._device)
        return self._device_bytes() / total_bytes

    def _device_bytes(self) -> int:
        """Return the bytes of the device's memory that judging a candidate takes, generously; 0 on a CPU."""
        if self._device.type != "cuda":
            return 0
        passing_bytes = torch.cuda.max_memory_allocated(self._device)
        input_buffer = self._worker.input_buffer
        kept_bytes = max(input_buffer.slots_of(one.number) * one.output_bytes for one in self._references)
        children_bytes = 2 * input_buffer.size_bytes + kept_bytes
        return int(passing_bytes + children_bytes + _CONTEXTS_BYTES)

    def _describe(self) -> messages.Description:
        """Return what the table of admitted tasks says of this one: milliseconds and bytes."""
        reference, worker = self._reference, self._worker
        draw = reference.draw(self._rng.getrandbits(62))
        limits = roofline.work_of(reference, draw).limits
        on_cuda = self._device.type == "cuda"
        blocks: dict[Operation, list[samples.Block]] = {"run": []} if on_cuda else {"run": [], "echo": []}
        with self._faults.typed():
            for _number in range(_NUM_REFERENCE_CALLS):
                for operation, seen in blocks.items():
                    seen.append(worker.exchange(operation, [draw]).block)
                    worker.release()
        if on_cuda:
            times_ms = samples.single_ms(blocks["run"])
        else:
            times_ms = samples.cpu_times_ms(blocks["run"], blocks["echo"], torch.get_num_threads())
        return messages.Description(
            reference_ms=median(times_ms),
            limits=limits,
            facts=roofline.device_facts(reference),
            inputs_bytes=draw.size_bytes,
            outputs_bytes=reference.output_bytes,
            device_bytes=self._device_bytes(),
            tolerance=min(admission.tolerance for _, admission in self._admitted),
            keeps_state=reference.keeps_state,
        )

    def _judge(self, job: messages.Judge, fds: list[int]) -> messages.Verdict:
        self._await_room()
        return self._judgement(job, fds).run(job.source, job.setup)

    def _time_again(self, job: messages.TimeAgain, fds: list[int]) -> messages.Verdict:
        with self._faults.typed():
            self._worker.close()
            self._worker.link.close()
            self._worker = self._reference_worker(fds[2:], job.reference_init)
        return self._judgement(job, fds[:2]).time(job.source, job.setup)

    def _judgement(self, job: messages.Judge, fds: list[int]) -> Judgement:
        judged = judged_of([reference.workload for reference in self._references], held_out=job.held_out)
        return Judgement(
            [(reference, how) for reference, how in self._admitted if reference.workload in judged],
            job.protocol,
            self._worker,
            lambda: self._open_worker(fds, job.init, job.protocol.timeout_s),
            self._rng,
            job.arithmetic,
            self._entered,
        )

    def _entered(self, stage: Stage) -> None:
        self._channel.send(Answer(content=messages.Entered(stage=stage)))

    def _await_room(self) -> None:
        """Wait until the driver has freed the memory of a candidate that was killed.

        It is free once there is as much as this candidate needs, or as much as the one before it had.
        """
        self._await_free(min(self._needed, self._had))
        self._had = self._room()

    def _await_free(self, share: float) -> None:
        until = time.monotonic() + _ROOM_S
        while self._room() < share and time.monotonic() < until:
            time.sleep(_ROOM_LOOK_S)

    def _room(self) -> float:
        """Return the free share of the device's memory; 1 on a CPU."""
        if self._device.type != "cuda":
            return 1.0
        free_bytes, total_bytes = torch.cuda.mem_get_info(self._device)
        return free_bytes / total_bytes

    def free_share(self) -> float:
        """Empty the cache of torch's allocator. Return the free share of the device's memory; 1 on a CPU."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return self._room()

    def _reference_worker(self, fds: list[int], init: int) -> Worker:
        worker = self._open_worker(fds, init, _REFERENCE_BUDGET_S, leads=True)
        worker.build(f"{self._start.source}\n\nModelNew = Model\n", "")
        return worker

    def _open_worker(self, fds: list[int], init: int, budget_s: float, *, leads: bool = False) -> Worker:
        data_fd, control_fd = fds
        spin_s = SPIN_S if self._device.type == "cuda" else 0.0
        link = Link(socket.socket(fileno=data_fd), control_fd, budget_s, spin_s)
        references, threads, rng = self._references, self._start.threads, self._rng
        if self._device.type == "cuda":
            return GpuWorker(link, references, threads, rng, self._pace, leads=leads)
        return CpuWorker(link, init, references, threads, rng)
