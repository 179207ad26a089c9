"""A lock for each key: what takes long for one task does not keep the others waiting."""

from __future__ import annotations

import threading
from collections.abc import Hashable


class KeyedLocks:
    """`of` gives the same lock for equal keys. They are few, and kept."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, threading.Lock] = {}
        self._guard = threading.Lock()

    def of(self, key: Hashable) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(key, threading.Lock())
