"""Embeddings by a model, against a real server."""

from __future__ import annotations

import numpy as np
import pytest

from kbopt.core.errors import InfraError
from kbopt.proposers.model_embedding import ModelEmbedder
from tests.support.llm_briefs import CHANGED, PARENT
from tests.support.openai_server import EMBEDDING_DIM, Answer, Behaviour, Fail, OpenAIServer, Script


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test")


def serving(*behaviours: Behaviour) -> OpenAIServer:
    return OpenAIServer(Script(behaviours=behaviours or (Answer(),), models=("embedder",)))


def embedder(server: OpenAIServer) -> ModelEmbedder:
    return ModelEmbedder("openai/embedder", api_base=server.url)


def test_vectors_are_unit_rows_in_the_order_of_the_sources() -> None:
    with serving() as server:
        vectors = embedder(server).embed([PARENT, CHANGED, "something else entirely"])
        swapped = embedder(server).embed([CHANGED, PARENT])
    assert vectors.shape == (3, EMBEDDING_DIM)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(vectors[:2], swapped[::-1])
    near, far = np.linalg.norm(vectors[0] - vectors[1:], axis=1)
    assert near < far


def test_an_address_may_hold_a_key_in_its_query() -> None:
    with OpenAIServer(Script(behaviours=(Answer(),), models=("embedder",), query="k=1")) as server:
        vectors = ModelEmbedder("openai/embedder", api_base=f"{server.url}?k=1").embed([PARENT])
    assert vectors.shape == (1, EMBEDDING_DIM)


def test_a_source_is_embedded_once() -> None:
    with serving() as server:
        known = embedder(server)
        first = known.embed([PARENT, PARENT])
        again = known.embed([CHANGED, PARENT])
        assert [request.prompt for request in server.requests] == [PARENT, CHANGED]
    np.testing.assert_array_equal(first[0], again[1])


def test_many_sources_go_in_batches() -> None:
    with serving() as server:
        vectors = embedder(server).embed([f"class ModelNew: x = {number}" for number in range(150)])
        assert len(server.requests) == 3
    assert vectors.shape == (150, EMBEDDING_DIM)


def test_no_sources_need_no_request() -> None:
    with serving() as server:
        assert embedder(server).embed([]).shape == (0, 0)
        assert server.requests == ()


def test_a_failed_request_is_sent_again() -> None:
    with serving(*[Fail(status=503)] * 3, Answer()) as server:
        assert embedder(server).embed([PARENT]).shape == (1, EMBEDDING_DIM)
        assert len(server.requests) == 4


async def test_an_embedder_may_be_called_within_an_event_loop() -> None:
    with serving() as server:
        assert embedder(server).embed([PARENT]).shape == (1, EMBEDDING_DIM)


def test_a_refusal_is_a_failure_of_the_infrastructure() -> None:
    with OpenAIServer(Script(models=("another",))) as server, pytest.raises(InfraError) as caught:
        embedder(server).embed([PARENT])
    assert str(caught.value).startswith("the embedding model openai/embedder refuses: NotFoundError")
