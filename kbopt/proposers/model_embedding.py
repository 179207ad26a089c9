"""Embeddings of sources by a model, through LiteLLM."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kbopt.core.errors import InfraError
from kbopt.proposers.litellm_service import embed_texts
from kbopt.proposers.models import ModelUnusable, RequestFailed, Unanswerable

MAX_CHARS = 24_000
"""Of a source, the characters embedded: embedding models take some 8,000 tokens and refuse more."""

BATCH = 64
BACKOFFS_S = (1.0, 5.0)


class ModelEmbedder:
    """An embedder that asks `model`, blocking, for each source once.

    Vectors are kept for the life of the object. Raises `InfraError` where the service does not answer within
    three attempts, and at once where it refuses.
    """

    waits = True

    def __init__(self, model: str, *, api_base: str | None = None, timeout_s: float = 60.0) -> None:
        self.name = model
        self._api_base = api_base
        self._timeout_s = timeout_s
        self._known: dict[bytes, NDArray[np.float32]] = {}

    def embed(self, sources: Sequence[str]) -> NDArray[np.float32]:
        """One row for each source; shape (0, 0) for none."""
        keys = [hashlib.sha256(source.encode()).digest() for source in sources]
        new = {key: source for key, source in zip(keys, sources, strict=True) if key not in self._known}
        for start in range(0, len(new), BATCH):
            batch = list(new)[start : start + BATCH]
            vectors = self._ask([new[key][:MAX_CHARS] or " " for key in batch])
            self._known.update(zip(batch, vectors, strict=True))
        if not keys:
            return np.zeros((0, 0), dtype=np.float32)
        return np.stack([self._known[key] for key in keys])

    def _ask(self, texts: Sequence[str]) -> NDArray[np.float32]:
        for backoff_s in (*BACKOFFS_S, None):
            try:
                rows = embed_texts(self.name, texts, api_base=self._api_base, timeout_s=self._timeout_s)
            except RequestFailed as failure:
                if backoff_s is None:
                    raise InfraError(
                        f"the embedding model {self.name} does not answer: {failure}"
                    ) from failure
                time.sleep(max(backoff_s, min(failure.retry_after_s or 0.0, self._timeout_s)))
            except (ModelUnusable, Unanswerable) as failure:
                raise InfraError(f"the embedding model {self.name} refuses: {failure}") from failure
            else:
                return _unit_rows(rows, len(texts), self.name)
        raise AssertionError("the last attempt returns or raises")


def _unit_rows(rows: Sequence[Sequence[float]], num_rows: int, model: str) -> NDArray[np.float32]:
    """`rows` scaled to length one. Models differ in whether they do that."""
    if len({len(row) for row in rows}) > 1:
        raise InfraError(f"the embedding model {model} gave vectors of different lengths")
    vectors = np.asarray(rows, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != num_rows:
        raise InfraError(
            f"the embedding model {model} gave an array of {vectors.shape} for {num_rows} sources"
        )
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise InfraError(f"the embedding model {model} gave a vector without a direction")
    unit: NDArray[np.float32] = (vectors / norms).astype(np.float32)
    return unit
