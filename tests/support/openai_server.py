"""An HTTP server on the loopback that speaks the OpenAI protocol and answers from a script.

It serves `POST /v1/chat/completions` (streaming and not), `POST /v1/embeddings`, `GET /v1/models` and,
for tests in other processes, `GET /requests`: what was asked so far. In a test:

    with OpenAIServer(Script(behaviours=(Fail(status=429, retry_after_s=0.1), Answer(text="...")))) as server:
        client.use(server.url)

As a process, `python -m tests.support.openai_server --port 0 --script FILE` prints its URL on the first
line and serves until it is stopped. The script file is the codec's JSON of `Script`.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import random
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from kbopt.core import codec

EMBEDDING_DIM = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A well-formed answer. `finish` is the protocol's `finish_reason`; `refusal` goes in its own field.

    Served only to requests that contain `when`, in the prompt or as `model: NAME`. `delay_s` is the
    model's latency in seconds.
    """

    text: str = ""
    finish: Literal["stop", "length", "content_filter"] = "stop"
    refusal: str | None = None
    when: str = ""
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """An HTTP error with the protocol's error object; `retry_after_s` becomes a `Retry-After` header."""

    status: int
    retry_after_s: float | None = None
    message: str = "scripted failure"
    code: str | None = None
    when: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hang:
    """The request is read and never answered, until the server closes."""

    when: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """Status 200 with a body that is not JSON."""

    body: str = '{"choices": [{"mess'
    when: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """The connection is closed without a byte of answer."""

    when: str = ""


Behaviour = Answer | Fail | Hang | Garbage | Drop


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What the server does. In `sequence` each behaviour is used once and the last that fits repeats.

    In `random` order one that fits is drawn for each request, from `seed`. `models` are the names that
    `/v1/models` lists; `aliases` are served too, but not listed; other names get a 404. `usd_per_token`
    adds a `cost` to the usage, as some routers do. `key` is the bearer token asked for,
    `user` the name and password, `query` what addresses end with after a question mark; empty accepts any.
    `under` is what paths have before `/v1`, such as `/SECRET`.
    """

    behaviours: tuple[Behaviour, ...] = (Answer(text="hello"),)
    order: Literal["sequence", "random"] = "sequence"
    seed: int = 0
    models: tuple[str, ...] = ("scripted",)
    aliases: tuple[str, ...] = ()
    usd_per_token: float | None = None
    key: str = ""
    user: str = ""
    query: str = ""
    under: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as it came in; `prompt` is the text of all messages, or of all inputs to embed."""

    path: str
    model: str
    prompt: str
    num_messages: int = 0


class OpenAIServer:
    """Serves `script` on `127.0.0.1:port` (0 picks a free one) from `__enter__` to `__exit__`."""

    def __init__(self, script: Script | None = None, *, port: int = 0) -> None:
        self.script = script or Script()
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._used: set[int] = set()
        self._under_way = 0
        self.most_at_once = 0
        self._random = random.Random(self.script.seed)
        self._http = _Server(("127.0.0.1", port), self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """The API base that clients are given, ending in `/v1`."""
        return f"http://127.0.0.1:{self._http.server_address[1]}{self.script.under}/v1"

    @property
    def requests(self) -> tuple[Request, ...]:
        """Chat and embedding requests so far, oldest first."""
        with self._lock:
            return tuple(self._requests)

    def __enter__(self) -> OpenAIServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def record(self, request: Request) -> None:
        with self._lock:
            self._requests.append(request)

    @contextlib.contextmanager
    def under_way(self) -> Iterator[None]:
        """Counts the requests that are being answered; `most_at_once` keeps the largest count."""
        with self._lock:
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1

    def next_behaviour(self, request: Request) -> Behaviour:
        """The behaviour whose turn it is among those that fit the request."""
        text = f"model: {request.model}\n{request.prompt}"
        with self._lock:
            fitting = [i for i, b in enumerate(self.script.behaviours) if b.when in text]
            if not fitting:
                return Fail(status=400, message="no scripted behaviour fits this prompt")
            if self.script.order == "random":
                return self.script.behaviours[self._random.choice(fitting)]
            chosen = next((i for i in fitting if i not in self._used), fitting[-1])
            self._used.add(chosen)
            return self.script.behaviours[chosen]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], owner: OpenAIServer) -> None:
        self.owner = owner
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is normal here; anything else is a fault of the server."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    # A keep-alive connection that the client forgot must not hold a thread for ever.
    timeout = 30

    def log_message(self, format: str, *args: object) -> None:
        """Silent: a test's output is its own."""

    def do_GET(self) -> None:
        script = self.server.owner.script
        if self.path == "/requests":
            self._send(200, codec.encode(self.server.owner.requests))
        elif not self._authorised():
            return
        elif self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [{"id": m, "object": "model"} for m in script.models]})
        elif self.path.removeprefix("/v1/models/") in script.models + script.aliases:
            self._send(200, {"id": self.path.removeprefix("/v1/models/"), "object": "model"})
        else:
            self._error(404, f"no {self.path} here", None)

    def do_POST(self) -> None:
        script = self.server.owner.script
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._authorised():
            return
        if self.path not in ("/v1/chat/completions", "/v1/embeddings"):
            self._error(404, f"no {self.path} here", None)
        elif body["model"] not in script.models + script.aliases:
            self._error(404, f"The model `{body['model']}` does not exist", "model_not_found")
        elif self.path == "/v1/embeddings":
            self._embed(body)
        else:
            with self.server.owner.under_way():
                self._chat(body)

    def _authorised(self) -> bool:
        script = self.server.owner.script
        self.path, _, query = self.path.partition("?")
        if not self.path.startswith(script.under):
            self._error(404, "no such gateway", None)
            return False
        self.path = self.path.removeprefix(script.under)
        given = self.headers.get("Authorization", "")
        expected = f"Bearer {script.key}" if script.key else ""
        if script.user:
            expected = f"Basic {base64.b64encode(script.user.encode()).decode()}"
        if (expected and given != expected) or (script.query and query != script.query):
            self._error(
                401, f"Incorrect API key provided: {given.removeprefix('Bearer ')}", "invalid_api_key"
            )
            return False
        return True

    def _chat(self, body: dict[str, Any]) -> None:
        owner = self.server.owner
        messages = body["messages"]
        prompt = "\n".join(str(message.get("content") or "") for message in messages)
        request = Request(path=self.path, model=body["model"], prompt=prompt, num_messages=len(messages))
        owner.record(request)
        behaviour = owner.next_behaviour(request)
        match behaviour:
            case Answer():
                if behaviour.delay_s:
                    time.sleep(behaviour.delay_s)
                if body.get("stream"):
                    self._stream(body, prompt, behaviour)
                else:
                    self._send(200, self._completion(body, prompt, behaviour))
            case Fail():
                self._error(behaviour.status, behaviour.message, behaviour.code, behaviour.retry_after_s)
            case Garbage():
                self._send_bytes(200, behaviour.body.encode(), "application/json")
            case Hang():
                owner.closing.wait()
                self.close_connection = True
            case Drop():
                self.close_connection = True

    def _completion(self, body: dict[str, Any], prompt: str, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
        if answer.refusal is not None:
            message["refusal"] = answer.refusal
        return {
            **self._head(body, "chat.completion"),
            "choices": [{"index": 0, "message": message, "finish_reason": answer.finish}],
            "usage": self._usage(prompt, answer.text),
        }

    def _stream(self, body: dict[str, Any], prompt: str, answer: Answer) -> None:
        head = self._head(body, "chat.completion.chunk")
        pieces = [answer.text[i : i + 40] for i in range(0, len(answer.text), 40)]
        deltas: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": ""}, None)]
        deltas += [({"content": piece}, None) for piece in pieces]
        deltas.append(({}, answer.finish))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for delta, finish in deltas:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            self._event(json.dumps({**head, "choices": [choice]}))
        if (body.get("stream_options") or {}).get("include_usage"):
            self._event(json.dumps({**head, "choices": [], "usage": self._usage(prompt, answer.text)}))
        self._event("[DONE]")

    def _event(self, data: str) -> None:
        self.wfile.write(f"data: {data}\n\n".encode())
        self.wfile.flush()

    def _head(self, body: dict[str, Any], kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12]
        return {"id": f"chatcmpl-{digest}", "object": kind, "created": 1_700_000_000, "model": body["model"]}

    def _usage(self, prompt: str, text: str) -> dict[str, Any]:
        """Four characters a token, so that tests can state the numbers they expect."""
        asked, answered = len(prompt) // 4, len(text) // 4
        usage = {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
        price = self.server.owner.script.usd_per_token
        return usage if price is None else {**usage, "cost": price * (asked + answered)}

    def _embed(self, body: dict[str, Any]) -> None:
        inputs = [body["input"]] if isinstance(body["input"], str) else body["input"]
        prompt = "\n".join(inputs)
        request = Request(path=self.path, model=body["model"], prompt=prompt)
        self.server.owner.record(request)
        behaviour = self.server.owner.next_behaviour(request)
        if isinstance(behaviour, Fail):
            self._error(behaviour.status, behaviour.message, behaviour.code, behaviour.retry_after_s)
            return
        as_base64 = body.get("encoding_format") == "base64"
        data = []
        for index, text in enumerate(inputs):
            vector = _trigram_vector(text)
            packed = base64.b64encode(vector.tobytes()).decode() if as_base64 else vector.tolist()
            data.append({"object": "embedding", "index": index, "embedding": packed})
        usage = {"prompt_tokens": len(prompt) // 4, "total_tokens": len(prompt) // 4}
        self._send(200, {"object": "list", "data": data, "model": body["model"], "usage": usage})

    def _error(self, status: int, message: str, code: str | None, retry_after_s: float | None = None) -> None:
        headers = {} if retry_after_s is None else {"Retry-After": f"{retry_after_s:g}"}
        error = {"message": message, "type": "scripted", "param": None, "code": code}
        self._send(status, {"error": error}, headers)

    def _send(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        self._send_bytes(status, json.dumps(value).encode(), "application/json", headers)

    def _send_bytes(
        self, status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _trigram_vector(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Counts of hashed trigrams: near texts give near vectors, as a model's embeddings would."""
    vector = np.zeros(EMBEDDING_DIM, dtype=np.float32)
    for start in range(max(1, len(text) - 2)):
        digest = hashlib.sha256(text[start : start + 3].encode()).digest()
        vector[digest[0] % EMBEDDING_DIM] += 1.0
    return vector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0 picks a free port")
    parser.add_argument("--script", type=Path, help="JSON of a Script; without it every answer is 'hello'")
    options = parser.parse_args()
    script = codec.loads(Script, options.script.read_bytes()) if options.script else Script()
    with OpenAIServer(script, port=options.port) as server:
        print(server.url, flush=True)
        # Waiting with a bound lets SIGINT through on every platform.
        while not server.closing.wait(3600):
            pass


if __name__ == "__main__":
    main()
