"""The requests in a spool, as one job sees them: which one it takes next, and which have results."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbopt.core import codec
from kbopt.core.evaluations import EvalRequest
from kbopt.core.profile import ProfileRequest
from kbopt.evaluation.spool.files import REQUESTS, RESULTS, SAME_VERSION, Line, Say, Tails, is_id
from kbopt.evaluation.spool.jobs import TAKEOVER_S, JobWatch, claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request. Only the device named `device` may judge it, or any device if it is ""."""

    id: str
    owner: str
    device: str
    raw: Any
    place: str


@dataclass(slots=True)
class _Claim:
    generation: int = 0
    holder: str = ""


class Requests:
    """The requests of a spool for the job `name`. The job takes requests from each driver in turn."""

    def __init__(
        self,
        folder: Path,
        name: str,
        complain: Say,
        *,
        takeover_s: float = TAKEOVER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._name = name
        self._complain = complain
        self._asked = Tails(folder / REQUESTS, complain)
        self._judged = Tails(folder / RESULTS, complain)
        self._jobs = JobWatch(folder, complain, takeover_s=takeover_s, clock=clock)
        self._waiting: dict[str, dict[str, Asked]] = {}
        self._known: set[str] = set()
        self._done: set[str] = set()
        self._claims: dict[str, _Claim] = {}
        self._turns: dict[str, int] = {}
        self._turn = itertools.count(1)
        self.device = ""

    def look(self) -> None:
        """Read new requests, results and heartbeats. Raises OSError if the spool cannot be read."""
        self._jobs.look()
        self._read_results()
        for line in self._asked.new():
            asked = self._of(line)
            if asked is not None and asked.id not in self._known:
                self._known.add(asked.id)
                if asked.id not in self._done:
                    self._waiting.setdefault(asked.owner, {})[asked.id] = asked

    def take(self) -> tuple[Asked, EvalRequest | ProfileRequest] | None:
        """Claim and return the next free request for this device, or None. Raises OSError.

        The driver that was served longest ago comes first, with its oldest request.
        """
        for owner in sorted(self._waiting, key=lambda owner: self._turns.get(owner, 0)):
            for asked in list(self._waiting.get(owner, {}).values()):
                if self.is_done(asked) or not self._is_for_us(asked) or not self._is_free(asked):
                    continue
                try:
                    request = codec.decode(EvalRequest | ProfileRequest, asked.raw)
                except codec.CodecError as error:
                    self._drop(asked.owner, asked.id)  # A job with the search's version may judge it.
                    self._complain(f"{asked.place}: the request cannot be read: {error}. {SAME_VERSION}")
                    continue
                if self._claim(asked):
                    self._drop(asked.owner, asked.id)
                    self._turns[owner] = next(self._turn)
                    return asked, request
        return None

    def is_done(self, asked: Asked) -> bool:
        """Return whether any job has written its result, as far as this job has read."""
        return asked.id in self._done

    @property
    def num_waiting(self) -> int:
        """The number of requests without a result that this job has not taken."""
        return sum(map(len, self._waiting.values()))

    @property
    def num_elsewhere(self) -> int:
        return sum(not self._is_for_us(asked) for asked in self._all_waiting())

    @property
    def num_left(self) -> int:
        """The number of waiting requests for this device that no living job has claimed."""
        return sum(
            self._is_for_us(asked) and not self._is_judged_by_another(asked) for asked in self._all_waiting()
        )

    def wanted_devices(self) -> tuple[str, ...]:
        """Return the names of other devices that requests wait for, sorted."""
        return tuple(sorted({a.device for a in self._all_waiting() if not self._is_for_us(a)}))

    def _all_waiting(self) -> list[Asked]:
        return [asked for queue in self._waiting.values() for asked in queue.values()]

    def _is_for_us(self, asked: Asked) -> bool:
        return asked.device in ("", self.device)

    def _is_free(self, asked: Asked) -> bool:
        known = self._claims.get(asked.id)
        return known is None or self._jobs.is_gone(known.holder)

    def _is_judged_by_another(self, asked: Asked) -> bool:
        known = self._claims.get(asked.id)
        return known is not None and self._jobs.is_alive(known.holder)

    def _claim(self, asked: Asked) -> bool:
        """Try to claim the request, if necessary from a job that is gone. Return whether it worked."""
        known = self._claims.setdefault(asked.id, _Claim())
        while True:
            known.holder = known.holder or claim(self._folder, asked.id, known.generation, self._name)
            if known.holder == self._name:
                return True
            if not self._jobs.is_gone(known.holder):
                return False
            self._judged.expect(f"{known.holder}.jsonl")
            self._read_results()
            if asked.id in self._done:
                return False
            known.generation, known.holder = known.generation + 1, ""

    def _read_results(self) -> None:
        for line in self._judged.new():
            request = line.fields.get("id")
            if not is_id(request):
                self._complain(f"{line.place}: a result without the id of a request; it is passed over")
                continue
            self._done.add(request)
            self._claims.pop(request, None)
            for owner in list(self._waiting):
                self._drop(owner, request)

    def _of(self, line: Line) -> Asked | None:
        fields: Mapping[str, Any] = line.fields
        request, owner, device = (fields.get(name) for name in ("id", "owner", "device"))
        if not is_id(request) or not isinstance(owner, str) or not isinstance(device, str):
            self._complain(f"{line.place}: a request without id, owner and device; it is passed over")
            return None
        return Asked(id=request, owner=owner, device=device, raw=fields.get("request"), place=line.place)

    def _drop(self, owner: str, request: str) -> None:
        queue = self._waiting.get(owner, {})
        queue.pop(request, None)
        if not queue:
            self._waiting.pop(owner, None)
