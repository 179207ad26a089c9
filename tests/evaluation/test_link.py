"""A child that waits at a gate, over a real socket: what is said before, what after, and when it opens."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kbopt.evaluation.link import CandidateForged, CandidateRaised, Link, OutOfTime
from kbopt.evaluation.wire import Channel, Message

PATIENCE_S = 0.2


class Gate:
    def __init__(self) -> None:
        self.said: list[Message] = []
        self.is_open = threading.Event()

    def open(self, said: Message) -> None:
        self.said.append(said)
        self.is_open.set()


@contextmanager
def linked(child: Callable[[Channel, int, Gate], None], gate: Gate, budget_s: float = 10.0) -> Iterator[Link]:
    """A link to `child`, which is given its end of it, the number of the request, and the gate."""
    ours, theirs = socket.socketpair()

    def answer() -> None:
        channel = Channel(theirs)
        child(channel, channel.receive()["id"], gate)

    thread = threading.Thread(target=answer)
    thread.start()
    link = Link.over(ours, os.open(os.devnull, os.O_RDWR), budget_s)
    try:
        yield link
    finally:
        link.close()
        thread.join()
        theirs.close()


def ask(link: Link, gate: Gate) -> dict[str, Any]:
    return link.ask_gated("run", PATIENCE_S, gate.open, gate=1)


def test_the_gate_opens_once_the_child_waits_at_it():
    gate = Gate()

    def child(channel: Channel, number: int, gate: Gate) -> None:
        channel.send({"id": number, "outputs": ["here"]})
        gate.is_open.wait()
        channel.send({"id": number, "ns": [7]})

    with linked(child, gate) as link:
        answer = ask(link, gate)

    assert gate.said == [{"id": answer["id"], "outputs": ["here"]}]
    assert (answer["ns"], answer["outputs"]) == ([7], ["here"])


def test_a_call_that_waits_for_the_device_itself_is_let_through():
    gate = Gate()

    def child(channel: Channel, number: int, gate: Gate) -> None:
        gate.is_open.wait()
        channel.send({"id": number, "outputs": ["here"]})
        channel.send({"id": number, "ns": [7]})

    with linked(child, gate) as link:
        answer = ask(link, gate)

    assert gate.said == [{}]
    assert (answer["ns"], answer["outputs"]) == ([7], ["here"])


def test_outputs_are_those_that_were_said_before_the_gate_opened():
    gate = Gate()

    def child(channel: Channel, number: int, gate: Gate) -> None:
        channel.send({"id": number, "outputs": ["early"]})
        channel.send({"id": number, "ns": [7], "outputs": ["late"]})

    with linked(child, gate) as link:
        assert ask(link, gate)["outputs"] == ["early"]


def test_times_before_the_gate_is_open_are_forged():
    gate = Gate()

    def child(channel: Channel, number: int, gate: Gate) -> None:
        channel.send({"id": number, "outputs": ["here"], "ns": [7]})

    with linked(child, gate) as link, pytest.raises(CandidateForged, match="before the gate"):
        ask(link, gate)


def test_the_gate_opens_for_a_child_that_raises():
    gate = Gate()

    def child(channel: Channel, number: int, gate: Gate) -> None:
        channel.send({"id": number, "raised": {"type": "ValueError", "text": "no"}})

    with linked(child, gate) as link, pytest.raises(CandidateRaised, match="ValueError: no"):
        ask(link, gate)

    assert gate.is_open.is_set()


def test_a_child_that_never_says_anything_is_out_of_time():
    gate = Gate()

    def child(channel: Channel, number: int, gate: Gate) -> None:
        gate.is_open.wait()

    with linked(child, gate, budget_s=0.3) as link, pytest.raises(OutOfTime):
        ask(link, gate)

    assert link.busy_s >= 0.3
