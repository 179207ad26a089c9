"""Messages between the service's processes: length-prefixed JSON and file descriptors over a Unix socket.

Untrusted code holds one end of some of these sockets, so messages are JSON only and limited in size.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

from kbopt.core import codec

_HEADER = struct.Struct("!I")
_MAX_FDS = 8
"""Descriptors that one message may bring, if the receiver names no other number. The kernel allows 253."""
DEFAULT_LIMIT_BYTES = 64 * 2**20
"""Bytes of a message at most. The largest part of one is a task's source with inputs as text, half a MiB."""

_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)
SPIN_S = 0.005
"""A value for `Channel.spin_s`, in seconds: longer than the gap between two requests of a timing session."""


class ChannelClosed(Exception):
    """The other end is gone: its process ended or closed the socket."""


class WireError(Exception):
    """The other end sent bytes that are no message of this protocol."""


class Channel:
    """One end of a connection.

    It receives messages of at most `limit_bytes`, and at most `max_fds` descriptors with each read; the
    kernel drops more. For the first `spin_s` seconds of a wait it polls without sleeping, because to wake up
    takes tens of microseconds that scatter. Two threads must not use the same direction at once.
    """

    def __init__(
        self, sock: socket.socket, limit_bytes: int = DEFAULT_LIMIT_BYTES, max_fds: int = _MAX_FDS
    ) -> None:
        self._sock = sock
        self._limit_bytes = limit_bytes
        self._max_fds = max_fds
        self._fds: list[int] = []
        self.spin_s = 0.0

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """Return a channel and the socket of its other end, which is for another process."""
        ours, theirs = socket.socketpair()
        return cls(ours), theirs

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, message: object, fds: Sequence[int] = ()) -> None:
        """Send one message, with the descriptors `fds`. Raises ChannelClosed."""
        self.send_encoded(codec.packed(message), fds)

    def send_encoded(self, body: bytes, fds: Sequence[int] = ()) -> None:
        """Send one message that is JSON already. Raises ChannelClosed."""
        data = memoryview(_HEADER.pack(len(body)) + body)
        try:
            sent = socket.send_fds(self._sock, [data], list(fds)) if fds else self._sock.send(data)
            if sent < len(data):
                self._sock.sendall(data[sent:])
        except OSError as error:
            raise ChannelClosed(str(error)) from None

    def receive(self, kind: Any, timeout_s: float | None = None) -> Any:
        """Return the next message, a `kind`. The sender is trusted, so another message raises CodecError.

        Raises ChannelClosed, WireError, and TimeoutError after `timeout_s` seconds.
        """
        return codec.decode(kind, self.receive_json(timeout_s))

    def receive_json(self, timeout_s: float | None = None) -> dict[str, object]:
        """Return the next message as it came. Raises as `receive` does."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        if self.spin_s:
            self._spin(time.monotonic() + self.spin_s)
        (size,) = _HEADER.unpack(self._read(_HEADER.size, deadline))
        if size > self._limit_bytes:
            raise WireError(f"a message of {size} bytes; at most {self._limit_bytes} are accepted")
        try:
            message: object = json.loads(self._read(size, deadline))
        except (ValueError, RecursionError):
            raise WireError("a message that is not JSON") from None
        if not isinstance(message, dict):
            raise WireError("a message that is not a JSON object")
        return message

    def is_readable_within(self, timeout_s: float) -> bool:
        """Return whether data arrive, or the other end closes, within `timeout_s` seconds."""
        if self.spin_s:
            self._spin(time.monotonic() + min(self.spin_s, timeout_s))
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(1000 * timeout_s))

    def take_fds(self) -> list[int]:
        """Return the descriptors that arrived with the messages so far. The caller owns them."""
        fds, self._fds = self._fds, []
        return fds

    def close(self) -> None:
        for fd in self.take_fds():
            os.close(fd)
        self._sock.close()

    def _spin(self, until: float) -> None:
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                self._sock.recv(1, _PEEK)
                return

    def _read(self, size: int, deadline: float | None) -> bytes:
        parts: list[bytes] = []
        while size:
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise TimeoutError
            try:
                if left_s is not None:
                    self._sock.settimeout(left_s)
                data, fds = self._read_some(min(size, 2**20))
            except TimeoutError:
                raise
            except OSError as error:
                raise ChannelClosed(str(error)) from None
            finally:
                if left_s is not None:
                    self._sock.settimeout(None)
            self._fds.extend(fds)
            if not data:
                raise ChannelClosed("end of stream")
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def _read_some(self, size: int) -> tuple[bytes, list[int]]:
        if self._max_fds == 0:
            return self._sock.recv(size), []
        data, fds, _, _ = socket.recv_fds(self._sock, size, self._max_fds)
        return data, fds
