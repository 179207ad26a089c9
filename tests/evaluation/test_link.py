"""What the judge makes of a child's messages, over a real socket."""

import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kbopt.evaluation.judge.gpu_worker import GpuWorker
from kbopt.evaluation.judge.link import CandidateDied, CandidateRaised, Link, OutOfTime
from kbopt.evaluation.judge.reference import Draw
from kbopt.evaluation.judge.worker import Exchange
from kbopt.evaluation.messages import Done, Raised
from kbopt.evaluation.sandbox import init_process
from kbopt.evaluation.transport.channel import Channel
from kbopt.evaluation.transport.cuda_api import CudaError
from kbopt.evaluation.transport.cuda_inputs import CudaInputBuffer
from kbopt.evaluation.transport.layout import TensorSpec
from kbopt.evaluation.transport.untrusted import CandidateForged
from kbopt.evaluation.worker_messages import BatchDone, Called, CallOutput, Free, Place, Request

Child = Callable[[Channel, int], None]

GONE = "bb:2"
SPEC = TensorSpec(dtype="float32", shape=(2,), stride=(1,))
PLACE = Place(address=64, spec=SPEC, device="cuda", segment="aa:1")
OUTPUT = CallOutput(skeleton=[0], places=(PLACE,))
UNUSABLE = CallOutput(unusable="x")
RAISED = Raised(kind="RuntimeError", text="out of memory", frames="")


def reply(number: Any, content: Any) -> dict[str, Any]:
    return {"id": number, "content": content}


def called(*outputs: Any) -> Called:
    return Called(outputs=outputs)


@contextmanager
def linked(child: Child, budget_s: float = 10.0) -> Iterator[Link]:
    """A link to `child`, which is given its end of it and the number of the first request."""
    ours, theirs = socket.socketpair()

    def answer() -> None:
        with theirs:
            channel = Channel(theirs)
            child(channel, channel.receive(Request).id)

    thread = threading.Thread(target=answer)
    thread.start()
    link = Link(ours, os.open(os.devnull, os.O_RDWR), budget_s)
    try:
        yield link
    finally:
        link.close()
        thread.join()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"content": Raised(kind="ValueError", text="no", frames="")}, CandidateRaised),
        ({"content": {"type": "Raised"}}, CandidateForged),
        ({"content": {"type": "Raised", "kind": ["x"], "text": {}, "frames": ""}}, CandidateForged),
        ({"content": None}, CandidateForged),
        ({"content": OUTPUT}, CandidateForged),
        ({"id": 1}, CandidateForged),
        ({"id": None}, CandidateForged),
    ],
)
def test_answers_that_are_none(answer: dict[str, Any], error: type[Exception]):
    with (
        linked(lambda channel, number: channel.send({**reply(number, Done()), **answer})) as link,
        pytest.raises(error),
    ):
        link.ask(Free(), Done)


def test_answers_that_somebody_did_not_wait_for_are_dropped_and_no_others():
    def answers(channel: Channel, number: int) -> None:
        channel.send(reply(number, called()))
        channel.send(reply(number, BatchDone(ns=())))
        channel.send(reply(channel.receive(Request).id, Done()))
        channel.send(reply(channel.receive(Request).id + 1, Done()))

    with linked(answers) as link:
        with pytest.raises(MemoryError), link.asking(Free()):
            raise MemoryError

        assert link.ask(Free(), Done) == Done()
        with pytest.raises(CandidateForged):
            link.ask(Free(), Done)


def test_init_stays_in_step_where_the_answer_to_a_resumed_child_never_comes():
    control, init = socket.socketpair()

    def obey() -> None:
        for command, holds in ((init_process.CONTINUE, False), (init_process.LOOK, True)):
            assert init.recv(1) == command
            init.sendall(init_process.REPLY.pack(command, 0, holds))

    thread = threading.Thread(target=obey)
    thread.start()
    ours, theirs = socket.socketpair()
    link = Link(ours, control.detach(), budget_s=0.02)
    with theirs, init:
        with pytest.raises(OutOfTime), link.resumed():
            link.receive(1)
        assert link.stands()
        thread.join()
    link.close()


def test_a_child_that_goes_has_died_and_one_that_stays_silent_is_out_of_time():
    with linked(lambda channel, number: None) as link, pytest.raises(CandidateDied):
        link.ask(Free(), Done)

    silent = threading.Event()
    with linked(lambda channel, number: bool(silent.wait()), budget_s=0.2) as link:
        with pytest.raises(OutOfTime):
            link.ask(Free(), Done)
        assert link.busy_s >= 0.2
        silent.set()


FOREVER_MS = float("inf")


class FakeEvent:
    """An event of a stream, at `ms`."""

    def __init__(self, ms: float, log: list[str] | None = None) -> None:
        self.ms = ms
        self.log = log

    def synchronize(self) -> None:
        assert self.log is not None
        self.log.append("synchronize")

    def query(self) -> bool:
        return self.ms < FOREVER_MS

    def elapsed_time(self, later: "FakeEvent") -> float:
        return later.ms - self.ms


class FakeInputBuffer(CudaInputBuffer):
    """Logs what is done with it; a child sees `is_open`."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.is_open = threading.Event()

    def turn_to(self, workload: int) -> None:
        pass

    def next_gate(self) -> int:
        return 7

    def choose(self, slot: int, rng: Any) -> tuple[int, ...]:
        return (slot * 512,)

    def open_gate(self, places: Sequence[Sequence[int]], sets: Sequence[Sequence[torch.Tensor]]) -> Any:
        assert [len(places), len(sets)] == [2, 2]
        self.log.append("open")
        self.is_open.set()
        return FakeEvent(1.0)

    def await_done(self) -> None:
        self.log.append("await")

    def give_up(self) -> None:
        self.log.append("give up")


class FakeReader:
    def __init__(self, log: list[str], done_ms: float) -> None:
        self.log = log
        self.done_ms = done_ms

    def prepare_spot_check(self) -> None:
        self.log.append("prepare")

    def aim(self, calls: Sequence[Sequence[Any]]) -> Callable[[], Any]:
        if any(place.segment == GONE for outputs in calls for place in outputs):
            raise CudaError("cudaIpcOpenMemHandle failed")
        self.log.append(f"aim at {[len(outputs) for outputs in calls]}")

        def look() -> Any:
            self.log.append("look")
            return SimpleNamespace(
                spot_checks=[["seen"]] * len(calls), done=FakeEvent(self.done_ms, self.log)
            )

        return look


class Batch:
    """A worker of `child` on a device that is made up; what it came to, and in which order."""

    def __init__(self, child: Callable[[Channel, int, FakeInputBuffer], None], done_ms: float = 3.5) -> None:
        self.log: list[str] = []
        self.done_ms = done_ms
        self.child = child

    def run(self, num_late: int = 0, last: list[Any] | None = None) -> Exchange:
        """After `num_late` batches that were late, the last of which had its outputs at `last`."""
        input_buffer = FakeInputBuffer(self.log)
        with linked(lambda channel, number: self.child(channel, number, input_buffer), budget_s=5.0) as link:
            worker = GpuWorker.__new__(GpuWorker)
            worker.link = link
            worker.input_buffer = input_buffer
            fields: dict[str, Any] = {
                "_running": True,
                "_num_outputs": 1,
                "_output_bytes": 0,
                "_rng": None,
                "_reader": FakeReader(self.log, self.done_ms),
                "_num_late": Counter({("run", 0): num_late}),
                "_late_outputs": {("run", 0, 2): last} if last else {},
                "_pause": lambda: self.log.append("pause"),
            }
            for name, value in fields.items():
                setattr(worker, name, value)
            self.worker = worker
            return worker.batch("run", [Draw(skeleton=[], tensors=(torch.zeros(2),))] * 2)


def on_time(channel: Channel, number: int, input_buffer: FakeInputBuffer) -> None:
    channel.send(reply(number, called(OUTPUT, OUTPUT)))
    input_buffer.is_open.wait(5)
    channel.send(reply(number, BatchDone(ns=(3, 4))))


def test_a_batch_is_aimed_at_before_the_gate_opens_and_looked_at_when_it_is_done():
    batch = Batch(on_time)

    exchange = batch.run()

    assert batch.log == ["prepare", "aim at [1, 1]", "open", "await", "look", "pause"]
    assert exchange.wall_ns == 2_500_000
    assert (exchange.native_ns, exchange.is_late) == ((3, 4), False)
    assert exchange.spot_checks == [["seen"], ["seen"]]


def late(channel: Channel, number: int, input_buffer: FakeInputBuffer) -> None:
    input_buffer.is_open.wait(5)
    on_time(channel, number, input_buffer)


def test_a_late_batch_is_aimed_at_where_the_last_one_had_its_outputs():
    batch = Batch(late)

    assert batch.run(last=(OUTPUT, OUTPUT)).wall_ns == 2_500_000
    assert batch.worker._late_outputs == {("run", 0, 2): (OUTPUT, OUTPUT)}
    assert batch.log == ["prepare", "aim at [1, 1]", "open", "await", "look", "pause"]


def test_a_late_batch_is_aimed_at_anew_where_the_last_ones_memory_is_gone():
    gone = OUTPUT._replace(places=(PLACE._replace(segment=GONE),))
    batch = Batch(late)

    batch.run(last=(gone, gone))

    assert batch.log == ["prepare", "open", "aim at [1, 1]", "await", "look", "pause"]


def test_a_late_batch_whose_outputs_lie_elsewhere_is_looked_at_there():
    elsewhere = CallOutput(skeleton=[0, 1], places=(PLACE, PLACE))
    batch = Batch(late)

    exchange = batch.run(last=(OUTPUT, elsewhere))

    assert batch.log == [
        *("prepare", "aim at [1, 0]", "open", "await", "look"),
        *("aim at [1, 1]", "look", "synchronize", "pause"),
    ]
    assert exchange.outputs == (OUTPUT, OUTPUT)


def test_a_call_that_waits_for_the_device_is_let_through_the_gate():
    batch = Batch(late)

    assert batch.run().is_late
    assert batch.log == ["prepare", "open", "aim at [1, 1]", "await", "look", "pause"]


@pytest.mark.parametrize(("num_late", "is_late"), [(1, False), (2, True)])
def test_patience_with_an_operation_is_short_once_it_was_late_twice_running(
    monkeypatch: pytest.MonkeyPatch, num_late: int, is_late: bool
):
    monkeypatch.setattr("kbopt.evaluation.judge.gpu_worker._PATIENCE_S", 30.0)
    monkeypatch.setattr("kbopt.evaluation.judge.gpu_worker._SHORT_PATIENCE_S", 0.01)

    def slow(channel: Channel, number: int, input_buffer: FakeInputBuffer) -> None:
        input_buffer.is_open.wait(0.2)
        on_time(channel, number, input_buffer)

    assert Batch(slow).run(num_late).is_late == is_late


@pytest.mark.parametrize(
    ("messages", "log"),
    [
        ([called(OUTPUT)], ["open"]),
        ([BatchDone(ns=(1, 1))], ["open"]),
        ([called(OUTPUT, OUTPUT), BatchDone(ns=(1,))], ["aim at [1, 1]", "open", "await", "look", "give up"]),
        ([called(OUTPUT, OUTPUT), {}], ["aim at [1, 1]", "open", "await", "look", "give up"]),
        ([called(UNUSABLE, 5)], ["open"]),
    ],
)
def test_batches_that_are_forged_open_the_gate_all_the_same(messages: list[Any], log: list[str]):
    def forged(channel: Channel, number: int, input_buffer: FakeInputBuffer) -> None:
        for message in messages:
            channel.send(reply(number, message))
        input_buffer.is_open.wait(5)

    batch = Batch(forged)

    with pytest.raises(CandidateForged):
        batch.run()
    assert batch.log == ["prepare", *log]


def test_outputs_that_are_none_or_too_many_are_not_looked_at():
    def odd(channel: Channel, number: int, input_buffer: FakeInputBuffer) -> None:
        many = CallOutput(skeleton=[0, 1], places=(PLACE, PLACE))
        channel.send(reply(number, called(UNUSABLE, many)))
        input_buffer.is_open.wait(5)
        channel.send(reply(number, BatchDone(ns=(3, 4))))

    batch = Batch(odd)

    batch.run()
    assert "aim at [0, 0]" in batch.log


@pytest.mark.parametrize("num_before", [0, 1])
def test_a_child_that_raises_or_dies_leaves_no_gate_shut(num_before: int):
    def raises(channel: Channel, number: int, input_buffer: FakeInputBuffer) -> None:
        if num_before:
            channel.send(reply(number, called(OUTPUT, OUTPUT)))
        channel.send(reply(number, RAISED))
        input_buffer.is_open.wait(5)

    def dies(channel: Channel, number: int, input_buffer: FakeInputBuffer) -> None:
        if num_before:
            channel.send(reply(number, called(OUTPUT, OUTPUT)))

    for child, error in ((raises, CandidateRaised), (dies, CandidateDied)):
        batch = Batch(child)
        with pytest.raises(error):
            batch.run()
        assert "open" in batch.log


def test_a_child_whose_stream_never_passes_its_calls_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kbopt.evaluation.judge.gpu_worker._DONE_S", 0.01)
    batch = Batch(on_time, done_ms=FOREVER_MS)

    with pytest.raises(CandidateForged, match="its stream does not"):
        batch.run()
    assert batch.log[-1] == "give up"
