"""The epsilon-net: proposals too close to what is known are not worth an evaluation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kbopt.core.ports import Embedder
from kbopt.core.proposals import Candidate

COARSE_DIM = 32
SAME = 1e-3
"""Distance up to which two embeddings are the same source: float32 rounding, doubled."""

ROUNDING = 1e-5
"""How far a squared distance in float32 may be off, of unit vectors: twenty times what was seen."""

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """The nearest known candidate, and how far it is."""

    key: str
    distance: float


class EpsilonNet:
    """Known candidates as unit vectors; which of them covers a new one.

    A source that did not work covers nothing but itself (`SAME`): its repair may be one token away.

    Exact, with a cheap first pass: distances after an orthonormal projection to `COARSE_DIM` dimensions
    never exceed the true ones, so only points within epsilon there are compared in full.
    """

    def __init__(self, embedder: Embedder, epsilon: float) -> None:
        self._embedder = embedder
        self._epsilon = epsilon
        self._keys: list[str] = []
        self._slots: dict[str, int] = {}
        self._unembedded: list[str] = []
        self._radius = np.zeros(64, dtype=np.float32)
        self._vectors: Vectors = np.zeros((0, 0), dtype=np.float32)
        self._coarse: Vectors = np.zeros((0, 0), dtype=np.float32)
        self._squares = np.zeros(0, dtype=np.float32)
        self._projection: Vectors = np.zeros((0, 0), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._keys)

    def insert(self, candidate: Candidate) -> None:
        """`candidate` is known from here on. It is embedded when the next one is looked up."""
        slot = len(self._keys)
        if slot == len(self._radius):
            self._radius = np.resize(self._radius, 2 * slot)
        self._slots[candidate.id] = slot
        self._keys.append(candidate.id)
        self._radius[slot] = self._epsilon
        self._unembedded.append(candidate.source)

    def __contains__(self, key: str) -> bool:
        return key in self._slots

    def mark_broken(self, key: str) -> None:
        """`key` did not work: only the very same source counts as known."""
        self._radius[self._slots[key]] = min(SAME, self._epsilon)

    def nearest(self, source: str) -> Neighbour | None:
        """The known candidate that covers `source`, None if it is new."""
        vector = self._embed([source])[0]
        size = len(self._keys)
        radius = self._radius[:size]
        # |a - b|^2 = aa - 2ab + bb: one product over the matrix, and no temporary of its size.
        shadow = vector @ self._projection
        products = np.einsum("ij,j->i", self._coarse[:size], shadow)  # unlike @, on this thread alone
        squares = self._squares[:size] - 2.0 * products + shadow @ shadow
        near = np.flatnonzero(squares <= (radius + SAME) ** 2 + ROUNDING)
        if not len(near):
            return None
        distances = np.linalg.norm(self._vectors[near] - vector, axis=1)
        covered = np.flatnonzero(distances <= radius[near])
        if not len(covered):
            return None
        winner = int(covered[np.argmin(distances[covered])])
        return Neighbour(key=self._keys[near[winner]], distance=float(distances[winner]))

    def farthest_first(self, batch: Sequence[Candidate], known: Collection[str]) -> dict[str, Neighbour]:
        """Those of `batch` that a batch filter drops, and the neighbour that covers each.

        Of the candidates farther than epsilon from `known` and from all inserted so far, insert the
        farthest (the first of equals); repeat until none is left.
        """
        vectors = self._embed([candidate.source for candidate in batch])
        slots = [self._slots[key] for key in known]
        distance = np.full(len(batch), np.inf)
        neighbour = [""] * len(batch)
        for key, vector in zip(known, self._vectors[slots], strict=True):
            _bring_near(distance, neighbour, vectors, key, vector)
        dropped: dict[str, Neighbour] = {}
        left = set(range(len(batch)))
        while left:
            for i in sorted(left):
                if distance[i] <= self._epsilon:
                    dropped[batch[i].id] = Neighbour(key=neighbour[i], distance=float(distance[i]))
                    left.remove(i)
            if left:
                farthest = min(left, key=lambda i: (-distance[i], i))
                left.remove(farthest)
                _bring_near(distance, neighbour, vectors, batch[farthest].id, vectors[farthest])
        return dropped

    def _embed(self, sources: Sequence[str]) -> Vectors:
        """Vectors of `sources`; whatever was inserted since the last call is embedded along with them."""
        vectors = self._embedder.embed([*self._unembedded, *sources])
        if not self._projection.size:
            dim = vectors.shape[1]
            square = np.random.default_rng(0).standard_normal((dim, min(dim, COARSE_DIM)))
            self._projection = np.linalg.qr(square)[0].astype(np.float32)
            self._vectors = np.zeros((64, dim), dtype=np.float32)
            self._coarse = np.zeros((64, self._projection.shape[1]), dtype=np.float32)
            self._squares = np.zeros(64, dtype=np.float32)
        start, stop = len(self._keys) - len(self._unembedded), len(self._keys)
        while stop > len(self._vectors):
            self._vectors = np.concatenate([self._vectors, np.zeros_like(self._vectors)])
            self._coarse = np.concatenate([self._coarse, np.zeros_like(self._coarse)])
            self._squares = np.concatenate([self._squares, np.zeros_like(self._squares)])
        self._vectors[start:stop] = vectors[: stop - start]
        coarse = self._coarse[start:stop] = vectors[: stop - start] @ self._projection
        self._squares[start:stop] = np.einsum("ij,ij->i", coarse, coarse)
        self._unembedded.clear()
        return vectors[stop - start :]


def _bring_near(
    distance: NDArray[np.float64], neighbour: list[str], vectors: Vectors, key: str, vector: Vectors
) -> None:
    to_vector = np.linalg.norm(vectors - vector, axis=1)
    for i in np.flatnonzero(to_vector < distance):
        distance[i], neighbour[i] = to_vector[i], key
