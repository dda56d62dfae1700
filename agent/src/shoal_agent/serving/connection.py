"""One client's connection: reads requests within limits, has them answered, writes the answers.

Owns the order of bytes on one socket; accepting and ending connections is `http`'s.
"""

from __future__ import annotations

import socket
import time
import zlib
from collections.abc import Callable

import msgspec

from shoal_agent.serving.api import problem
from shoal_agent.serving.http_message import (
    CONTINUE,
    MAX_HEAD_BYTES,
    Answer,
    Head,
    HttpError,
    KnownHead,
    encode_response,
    parse_head,
)

_RECEIVE = 16_384
"""Kept for each connection: a fresh buffer a call makes the allocator grow and trim the heap each time."""

Handler = Callable[[Head], Answer]
"""Says who answers what comes with a head; must not raise."""


class Limits(msgspec.Struct, frozen=True):
    """What a client may use.

    Attributes:
        connections: At the same time; one more is answered 503.
        body_bytes: Largest body, also after decompression.
        idle_s: A connection without a request is closed after this.
        request_s: A request must be complete within this.
    """

    connections: int = 64
    body_bytes: int = 16 * 1024 * 1024
    idle_s: int = 75
    request_s: float = 30.0


class Connection:
    """Requests one after the other.

    Args:
        connection: Blocking, with the kernel's time limits set.
        handler: Says who answers; asked again only when the head is another one than before.
        limits: What the client may use.
    """

    def __init__(self, connection: socket.socket, handler: Handler, limits: Limits) -> None:
        self._socket = connection
        self._handler = handler
        self._limits = limits
        self._buffer = memoryview(bytearray(_RECEIVE))
        self._pending = b""
        self._known: tuple[KnownHead, Answer] | None = None

    def serve(self) -> None:
        """Answer until the client goes, errs, or asks to close."""
        while True:
            try:
                request = self._read_head()
                if request is None:
                    return
                head, size, answer = request
                body = self._read_body(head, size)
            except HttpError as error:
                # what follows can't be told from the rest of this request: close
                self._socket.sendall(encode_response(problem(error), keep_alive=False))
                return
            payload = encode_response(answer(body), keep_alive=head.keep_alive, head_only=head.method == "HEAD")
            self._socket.sendall(payload)
            if not head.keep_alive:
                return

    def _read_head(self) -> tuple[Head, int, Answer] | None:
        """Return the next head, how many bytes of body follow, and who answers them; none: the client has gone."""
        pending = self._pending or self._receive()
        if self._known is not None and (found := self._known[0].read(pending)) is not None:
            end, size = found
            self._pending = pending[end:]
            return self._known[0].head, size, self._known[1]
        raw = self._read_raw_head(pending)
        if raw is None:
            return None
        head = parse_head(raw)
        answer = self._handler(head)
        self._known = KnownHead(raw, head), answer
        return head, head.content_length, answer

    def _read_raw_head(self, pending: bytes) -> bytes | None:
        deadline = 0.0
        while (end := pending.find(b"\r\n\r\n")) < 0:
            if not pending:
                return None
            if len(pending) > MAX_HEAD_BYTES:
                raise HttpError(431, f"the head is longer than {MAX_HEAD_BYTES} bytes")
            deadline = self._checked(deadline)
            more = self._receive()
            if not more:
                raise HttpError(400, "the connection ended within the head of a request")
            pending += more
        if end > MAX_HEAD_BYTES:
            raise HttpError(431, f"the head is longer than {MAX_HEAD_BYTES} bytes")
        self._pending = pending[end + 4 :]
        return pending[:end]

    def _read_body(self, head: Head, size: int) -> bytes:
        if size > self._limits.body_bytes:
            raise HttpError(413, f"the body has {size} bytes, at most {self._limits.body_bytes} are taken")
        pending = self._pending
        if len(pending) == size:
            body, self._pending = pending, b""
        elif len(pending) > size:
            body, self._pending = pending[:size], pending[size:]
        else:
            if head.expects_continue:
                self._socket.sendall(CONTINUE)
            body, self._pending = self._read_rest(pending, size), b""
        encoding = head.headers.get("content-encoding")
        return body if encoding is None else _decompressed(body, encoding, self._limits.body_bytes)

    def _read_rest(self, begun: bytes, size: int) -> bytes:
        parts, missing, deadline = [begun], size - len(begun), 0.0
        while missing:
            deadline = self._checked(deadline)
            more = self._socket.recv(min(missing, 1024 * 1024))
            if not more:
                raise HttpError(400, f"the connection ended {missing} bytes before the end of the body")
            parts.append(more)
            missing -= len(more)
        return b"".join(parts)

    def _receive(self) -> bytes:
        return bytes(self._buffer[: self._socket.recv_into(self._buffer)])

    def _checked(self, deadline: float) -> float:
        """Return the deadline of a request that came in pieces; the clock is only read for these."""
        now = time.monotonic()
        if deadline and now > deadline:
            raise HttpError(408, f"the request was not complete within {self._limits.request_s:g} s")
        return deadline or now + self._limits.request_s


def _decompressed(body: bytes, encoding: str, most: int) -> bytes:
    """Decode gzip or deflate, never beyond the limit."""
    if encoding == "identity":
        return body
    if encoding not in {"gzip", "deflate"}:
        raise HttpError(415, f"Content-Encoding is {encoding!r:.40}, expected gzip, deflate or none")
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS + 32)  # either header
    try:
        plain = decoder.decompress(body, most)
    except zlib.error as error:
        raise HttpError(400, f"the body is no {encoding}: {error}") from error
    if decoder.unconsumed_tail:
        raise HttpError(413, f"the body has more than {most} bytes when decompressed")
    if not decoder.eof:
        raise HttpError(400, f"the {encoding} body is cut off")
    return plain
