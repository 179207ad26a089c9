"""Whose request goes to the device next: equal shares of its seconds, not of requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

_FIRST_COST_S = 1.0
"""Seconds that a search's requests are taken to cost until the first answer: a small candidate's."""
_RECENT_SHARE = 0.3
"""Weight of the latest cost in a search's usual one: three answers outweigh what was before."""
_CREDIT_S = 10.0
"""Seconds by which a search that was away may be behind the others when it comes back: enough to be first,
too little to hold the device for all that it has missed."""


class FairShare:
    """Seconds of the device that each search has had, those in flight by what its requests usually take."""

    def __init__(self) -> None:
        self._used_s: dict[str, float] = {}
        self._cost_s: dict[str, float] = {}
        self._in_flight: Counter[str] = Counter()
        self._present: set[str] = set()

    def next_of(self, waiting: Mapping[str, float]) -> str:
        """The search whose request goes next. `waiting` says since when each search has one waiting."""
        self._let_in(waiting.keys() - self._present)
        self._present = {*waiting, *self._in_flight}
        chosen = min(waiting, key=lambda name: (self._had_s(name), waiting[name]))
        self._in_flight[chosen] += 1
        return chosen

    def done(self, search: str, seconds: float | None) -> None:
        """A request of `search` was answered, after that many seconds of the device; None if it was lost."""
        self._in_flight[search] -= 1
        self._in_flight = +self._in_flight
        if seconds is not None:
            usual = self._cost_s.get(search, seconds)
            self._cost_s[search] = usual + _RECENT_SHARE * (seconds - usual)
            self._used_s[search] = self._used_s.get(search, 0.0) + seconds

    def _let_in(self, newcomers: set[str]) -> None:
        least_s = min((self._had_s(name) for name in self._present), default=0.0)
        for name in newcomers:
            self._used_s[name] = max(self._used_s.get(name, 0.0), least_s - _CREDIT_S)

    def _had_s(self, search: str) -> float:
        cost_s = self._cost_s.get(search, _FIRST_COST_S)
        return self._used_s.get(search, 0.0) + self._in_flight[search] * cost_s
