"""The priority memory: what is known about every candidate, and which of them to improve next.

Priorities are computed afresh from whole arrays at every choice, never kept in a heap, because an
upper confidence bound changes for everyone whenever anyone is measured. At 100,000 candidates a
choice is a few passes over contiguous memory and stays well under a millisecond.
"""

from __future__ import annotations

import bisect
import math

import numpy as np
from numpy.typing import NDArray

from kbopt.core.settings import ScoreFunction, Ties

Floats = NDArray[np.float64]

_NEVER = np.iinfo(np.int64).min

SPREAD = 0.99
"""Factor on a parent's priority for every proposal being made from it, so that explorers spread over
kernels that are about as good; docs/decisions/0014 compares values."""

NUM_LEADERS = 64
"""How many of the best are kept sorted, so that the top few cost no pass over the memory."""


def priority(
    kind: ScoreFunction, mean: Floats, count: Floats, *, width: float, low: float, high: float
) -> Floats:
    """How promising candidates are, given the mean and the number of their scores; higher is better.

    `width` is exploration * sqrt(ln(n_steps + 2)) * (high - low), the confidence radius of a single
    measurement (Hoeffding); bounds are clipped to the range of scores seen, `low` to `high`.
    """
    if kind == "mean":
        return mean
    # In one array: each temporary of this size costs more in fresh pages than in arithmetic.
    bound = np.sqrt(count)
    np.divide(width, bound, out=bound)
    if kind == "ucb":
        return np.minimum(np.add(mean, bound, out=bound), high, out=bound)
    return np.maximum(np.subtract(mean, bound, out=bound), low, out=bound)


class Memory:
    """Candidates by priority; beyond `size`, whoever ranks last is forgotten (exact top k).

    A key is a candidate's id. `order` says which of two is newer. Scores are at least 0.
    """

    def __init__(self, *, size: int, kind: ScoreFunction, exploration: float, ties: Ties = "newest") -> None:
        if size < 1:
            raise ValueError(f"memory_size must be at least 1, not {size}")
        self._size = size
        self._kind = kind
        self._exploration = exploration
        self._newest = 1 if ties == "newest" else -1
        self._keys: list[str] = []
        self._slots: dict[str, int] = {}
        self._mean, self._count = np.zeros(64), np.ones(64)
        self._order, self._busy = np.zeros(64, dtype=np.int64), np.zeros(64, dtype=np.int64)
        self._weight = np.ones(64)  # SPREAD ** busy
        self._in_flight: dict[str, int] = {}
        self._leaders: list[tuple[float, int, str]] = []
        self.low, self.high = math.inf, 0.0

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: str) -> bool:
        return key in self._slots

    def put(self, key: str, *, order: int, mean: float, count: int, n_steps: int = 0) -> str | None:
        """Insert or update a candidate; the key that had to go, which may be `key` itself, else None."""
        self.low, self.high = min(self.low, mean), max(self.high, mean)
        slot = self._slots.get(key)
        if slot is None:
            slot = self._new_slot(key)
        known = bool(self._order[slot] == self._newest * order) and self._mean[slot] > mean
        self._mean[slot], self._count[slot] = mean, count
        self._order[slot] = self._newest * order
        self._weigh(slot, self._in_flight.get(key, 0))
        evicted = self._evict(n_steps) if len(self._keys) > self._size else None
        self._update_leaders(key, evicted, fell=known)
        return evicted

    def occupy(self, key: str) -> None:
        """A proposal is being made from `key`, until `release`."""
        self._set_busy(key, self._in_flight.get(key, 0) + 1)

    def release(self, key: str) -> None:
        """A proposal that was being made from `key` has been measured, dropped or given up."""
        self._set_busy(key, self._in_flight[key] - 1)

    def choose(self, n_steps: int = 0) -> str:
        """The candidate to improve next: the highest priority after the discount for work in flight.

        Equal ones: the least busy, then the newest (or the oldest, by `ties`).
        """
        size = len(self._keys)
        busy = self._busy[:size]
        values = self._priorities(n_steps) * self._weight[:size]
        is_tied = values == values.max()
        # Upper bounds are clipped, so nearly everyone may be tied: no gathering before it is needed.
        newest = int(np.where(is_tied, self._order[:size], _NEVER).argmax())
        if busy[newest]:
            is_tied &= busy == busy[is_tied].min()
            newest = int(np.where(is_tied, self._order[:size], _NEVER).argmax())
        return self._keys[newest]

    def at_random(self, rng: np.random.Generator) -> str:
        """Any candidate, each as likely as the other."""
        return self._keys[int(rng.integers(len(self._keys)))]

    def top(self, k: int) -> tuple[str, ...]:
        """The `k` highest mean scores, best first; ties as in `choose`, whoever is busy."""
        if k <= len(self._leaders) or len(self._leaders) == len(self._keys):
            return tuple(key for _, _, key in reversed(self._leaders[-k:] if k else []))
        return tuple(key for _, _, key in reversed(self._ranked(k)))

    def _priorities(self, n_steps: int) -> Floats:
        size = len(self._keys)
        width = self._exploration * math.sqrt(math.log(n_steps + 2)) * (self.high - self.low)
        return priority(
            self._kind, self._mean[:size], self._count[:size], width=width, low=self.low, high=self.high
        )

    def _new_slot(self, key: str) -> int:
        slot = len(self._keys)
        if slot == len(self._mean):
            self._mean, self._count = np.resize(self._mean, 2 * slot), np.resize(self._count, 2 * slot)
            self._order, self._busy = np.resize(self._order, 2 * slot), np.resize(self._busy, 2 * slot)
            self._weight = np.resize(self._weight, 2 * slot)
        self._keys.append(key)
        self._slots[key] = slot
        self._order[slot] = 0
        return slot

    def _evict(self, n_steps: int) -> str:
        values = self._priorities(n_steps)
        tied = np.flatnonzero(values == values.min())
        slot = int(tied[np.argmin(self._order[tied])])
        evicted, last = self._keys[slot], self._keys.pop()
        del self._slots[evicted]
        if last != evicted:
            end = len(self._keys)
            self._keys[slot], self._slots[last] = last, slot
            for column in (self._mean, self._count, self._order, self._busy, self._weight):
                column[slot] = column[end]
        return evicted

    def _set_busy(self, key: str, busy: int) -> None:
        if busy:
            self._in_flight[key] = busy
        else:
            del self._in_flight[key]
        if key in self._slots:
            self._weigh(self._slots[key], busy)

    def _weigh(self, slot: int, busy: int) -> None:
        self._busy[slot], self._weight[slot] = busy, SPREAD**busy

    def _update_leaders(self, key: str, evicted: str | None, *, fell: bool) -> None:
        gone = {key, evicted}
        kept = [leader for leader in self._leaders if leader[2] not in gone]
        if (fell or evicted) and len(kept) < len(self._leaders):
            self._leaders = self._ranked(NUM_LEADERS)
            return
        if key in self._slots:
            slot = self._slots[key]
            bisect.insort(kept, (float(self._mean[slot]), int(self._order[slot]), key))
        self._leaders = kept[-NUM_LEADERS:]

    def _ranked(self, k: int) -> list[tuple[float, int, str]]:
        """The best `k` by mean, best last."""
        mean = self._mean[: len(self._keys)]
        cut = np.partition(mean, -k)[-k] if 0 < k < len(mean) else -math.inf
        good = np.flatnonzero(mean >= cut)
        best = good[np.lexsort((self._order[good], mean[good]))[len(good) - min(k, len(good)) :]]
        return [(float(self._mean[i]), int(self._order[i]), self._keys[i]) for i in best]
