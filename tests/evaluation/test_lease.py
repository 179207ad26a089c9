import threading

from kbopt.evaluation.server.lease import Lease


def test_who_asks_first_gets_it_first() -> None:
    lease, order, asked = Lease(), [], []

    def use(number: int) -> None:
        asked.append(number)
        with lease:
            order.append(number)

    with lease:
        threads = [threading.Thread(target=use, args=(number,)) for number in range(20)]
        for number, thread in enumerate(threads):
            thread.start()
            while len(lease._waiting) <= number:
                threading.Event().wait(0.001)
        assert order == []
    for thread in threads:
        thread.join()
    assert order == list(range(20))


def test_it_is_not_taken_from_whoever_has_it_or_waits() -> None:
    lease = Lease()
    assert lease.acquire_now()
    assert not lease.acquire_now()
    lease.release()
    assert lease.acquire_now()


def test_who_has_begun_goes_on_before_who_has_not() -> None:
    lease, order = Lease(), []

    def use(name: str, *, goes_on: bool) -> None:
        with lease.to_go_on() if goes_on else lease:
            order.append(name)

    with lease:
        threads = []
        for name, goes_on in [("new", False), ("begun", True), ("newer", False), ("begun too", True)]:
            threads.append(threading.Thread(target=use, args=(name,), kwargs={"goes_on": goes_on}))
            threads[-1].start()
            while len(lease._waiting) + len(lease._begun) < len(threads):
                threading.Event().wait(0.001)
    for thread in threads:
        thread.join()
    assert order == ["begun", "begun too", "new", "newer"]
    assert lease.acquire_now()
