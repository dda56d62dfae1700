"""Servers and mirrors that lie, stall, redirect, truncate and forget, over real loopback HTTP."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from shoal_protocol.canonical import sha256_digest


@dataclass
class Place:
    """A place to download from; what it does is changed between requests.

    Attributes:
        content: Of every address.
        etag: Of the content; empty: none.
        forms: Coded forms, by the name of the coding; the first that a request takes is sent.
        status: Of every answer, none: as it should be.
        location: Where every request is redirected to.
        cut: Bodies break off after so many bytes.
        stalls: Bodies stop after their first half until the place is closed.
        ranges: Whether Range is honoured.
        announces: Whether the length of a body is told.
        always: Headers of every answer, besides its own or instead of them.
        tls: Speaks TLS by this context.
        asked: Path and headers of all requests, names in small letters.
        sent: Bytes of bodies that were written.
    """

    content: bytes
    etag: str = ""
    forms: dict[str, bytes] = field(default_factory=dict)
    status: int | None = None
    location: str = ""
    cut: int | None = None
    stalls: bool = False
    ranges: bool = True
    announces: bool = True
    always: dict[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    asked: list[dict[str, str]] = field(default_factory=list)
    sent: int = 0

    def __enter__(self) -> Self:
        self._closing = threading.Event()
        self._http = _Quiet(("127.0.0.1", 0), _handler(self, self._closing))
        if self.tls is not None:
            self._http.socket = self.tls.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        """The port of that."""
        return int(self._http.server_address[1])

    def ranges_asked(self) -> list[str | None]:
        """Return the Range header of each request."""
        return [headers.get("range") for headers in self.asked]

    def answer(self, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Answer a request as the rules of HTTP say."""
        if self.location:
            return self.status or 307, {"Location": self.location}, b"moved"
        if self.status is not None:
            return self.status, {}, b"no"
        taken = [name.strip() for name in headers.get("accept-encoding", "").split(",")]
        coding = next((name for name in self.forms if name in taken), "")
        body = self.forms[coding] if coding else self.content
        etag = f'"{sha256_digest(body)}"' if coding else self.etag
        found = {**({"ETag": etag} if etag else {}), **({"Content-Encoding": coding} if coding else {})}
        span = headers.get("range", "")
        if span and self.ranges and headers.get("if-range", etag) == etag:
            start = int(span.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                return 416, {"Content-Range": f"bytes */{len(body)}"}, b""
            found["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            return 206, found, body[start:]
        return 200, found, body


class ConnectProxy:
    """A proxy that tunnels (RFC 9110, section 9.3.6), wherever the request's host may be, to one port of this machine.

    Attributes:
        heads: What clients said before the tunnel was open.
        status: Of the answer.
    """

    def __init__(self, port: int) -> None:
        self.heads: list[bytes] = []
        self.status = "200 Connection established"
        proxy = self

        class Tunnel(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                head = b"".join(iter(self.rfile.readline, b"\r\n"))
                proxy.heads.append(head)
                self.wfile.write(f"HTTP/1.1 {proxy.status}\r\n\r\n".encode())
                if not proxy.status.startswith("200"):
                    return
                with socket.create_connection(("127.0.0.1", port)) as there:
                    back = threading.Thread(target=_relay, args=(there, self.connection), daemon=True)
                    back.start()
                    _relay(self.connection, there)
                    back.join()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tunnel)
        self._server.daemon_threads = True

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"


def _relay(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing: clients that go away in the middle are what these tests are about."""


def _handler(place: Place, closing: threading.Event) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            place.asked.append({**headers, "path": self.path})
            status, found, body = place.answer(headers)
            announced = {"Content-Length": str(len(body))} if place.announces else {"Connection": "close"}
            self.send_response(status)
            for name, value in {**announced, **found, **place.always}.items():
                self.send_header(name, value)
            self.end_headers()
            shown = body[: len(body) // 2] if place.stalls else body[: place.cut]
            self.wfile.write(shown)
            self.wfile.flush()
            place.sent += len(shown)
            if place.stalls:
                closing.wait(30.0)
            if shown != body or not place.announces:
                self.close_connection = True

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler
