"""Which explorers there are, and which of their former selves may come back."""

from __future__ import annotations


class Incarnations:
    """The latest incarnation of each explorer. What was replaced stays retired."""

    def __init__(self) -> None:
        self._latest: dict[int, str] = {}
        self._retired: set[str] = set()

    def __len__(self) -> int:
        """How many explorers have come so far."""
        return len(self._latest)

    def meet(self, index: int, incarnation: str) -> str | None:
        """Take `incarnation` for explorer `index`; which one it replaces, None for none."""
        former = self._latest.get(index)
        if incarnation == former or incarnation in self._retired:
            return None
        self._latest[index] = incarnation
        if former is not None:
            self._retired.add(former)
        return former

    def is_retired(self, incarnation: str) -> bool:
        """Whether another one has taken its place."""
        return incarnation in self._retired
