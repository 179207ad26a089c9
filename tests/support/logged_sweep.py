"""`kbopt sweep` on a simulated device that writes down what it measures, to count what is done twice.

python -m tests.support.logged_sweep LOG PACE [options of kbopt sweep]

The file `PACE` holds the seconds that one evaluation takes; it may change meanwhile. `LOG` gets a line for
each evaluation that the device begins.
"""

import asyncio
import functools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import kbopt.compose.searches
import kbopt.sweep
from kbopt.cli import main
from kbopt.cluster.messages import Factories
from kbopt.core.evaluations import EvalRequest, Result
from kbopt.simulated import SimulatedBackend
from kbopt.store.cache import request_key

MAX_BATCH = 4


class LoggedDevice(SimulatedBackend):
    """A simulated device with a pace from outside and a record of what it began."""

    def __init__(self, log: Path, pace: Path) -> None:
        super().__init__(max_batch=MAX_BATCH)
        self._log = log
        self._pace = pace

    async def evaluate(self, requests: Sequence[EvalRequest]) -> list[Result]:
        with self._log.open("a") as log:
            log.writelines(f"{request_key(request, 'any')}\n" for request in requests)
        service_s = float(self._pace.read_text())
        await asyncio.sleep(service_s * len(requests))
        return [replace(result, device_s=service_s) for result in await super().evaluate(requests)]


def logged_factories(log: Path, pace: Path, *arguments: object) -> Factories:
    made: Factories = kbopt.compose.searches.factories(*arguments)  # type: ignore[arg-type]
    return replace(made, backend=functools.partial(LoggedDevice, log, pace))


if __name__ == "__main__":
    from tests.support import logged_sweep  # under its own name, which the actors import

    log, pace, *options = sys.argv[1:]
    kbopt.sweep.factories = functools.partial(
        logged_sweep.logged_factories, Path(log).resolve(), Path(pace).resolve()
    )
    sys.argv[1:] = ["sweep", *options]
    main()
