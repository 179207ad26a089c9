"""A lock for each key, so that slow work for one task does not keep other tasks waiting."""

from __future__ import annotations

import threading
from collections.abc import Hashable


class KeyedLocks:
    """Returns the same lock for equal keys. Locks are never removed, since keys are few."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, threading.Lock] = {}
        self._guard = threading.Lock()

    def of(self, key: Hashable) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(key, threading.Lock())
