"""Whose request comes to the device next."""

import threading
from contextlib import ExitStack

from kbopt.evaluation.server.turns import Turns


class Requests:
    """Threads that wait for a turn one after the other; `order` says who had one."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.order: list[str] = []
        self.threads: list[threading.Thread] = []

    def wait(self, name: str, key: str) -> None:
        def work() -> None:
            with self.turns.of(key):
                self.order.append(name)

        before = len(self.turns._waiting)
        thread = threading.Thread(target=work)
        thread.start()
        self.threads.append(thread)
        while thread.is_alive() and len(self.turns._waiting) == before:
            pass

    def join(self) -> None:
        for thread in self.threads:
            thread.join(10)


def test_a_task_whose_judge_is_there_goes_first_and_the_others_in_their_order():
    turns = Turns(1, {"warm"}.__contains__)
    requests = Requests(turns)
    with turns.of("first"):
        for name, key in [("a", "cold"), ("b", "warm"), ("c", "colder"), ("d", "warm")]:
            requests.wait(name, key)
    requests.join()

    assert requests.order == ["b", "d", "a", "c"]


def test_nobody_is_passed_by_for_longer_than_the_patience():
    now = 0.0
    turns = Turns(1, {"warm"}.__contains__, patience_s=5.0, clock=lambda: now)
    requests = Requests(turns)
    with turns.of("first"):
        requests.wait("old", "cold")
        now = 5.1
        requests.wait("young", "warm")
    requests.join()

    assert requests.order == ["old", "young"]


def test_as_many_have_a_turn_at_once_as_there_may_be():
    turns = Turns(2, lambda _: False)
    requests = Requests(turns)
    with ExitStack() as held:
        held.enter_context(turns.of("a"))
        held.enter_context(turns.of("b"))
        requests.wait("c", "c")
        assert requests.order == []
    requests.join()

    assert requests.order == ["c"]
    with turns.of("d"), turns.of("e"):
        pass  # Both are free again.
