"""The other side of webhooks, whole: a receiver on loopback that remembers what came and answers as it is told."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        return json.loads(self.body)


@dataclass
class Receiver:
    """Answers by `answer(number of the request, from 0, its Received)` -> (status, headers, body); 204 by default.

    Attributes:
        hold: Requests are answered only while this is set.
    """

    url: str = ""
    got: list[Received] = field(default_factory=list)
    answer: Callable[[int, Received], tuple[int, dict[str, str], bytes]] = lambda _number, _received: (204, {}, b"")
    hold: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Event = field(default_factory=threading.Event)

    @property
    def types(self) -> list[str]:
        return [one.event["type"].removeprefix("dev.shoal.").removesuffix(".v1") for one in self.got]

    @property
    def subjects(self) -> list[str]:
        return [one.event["subject"] for one in self.got]


def status(*statuses: int) -> Callable[[int, Received], tuple[int, dict[str, str], bytes]]:
    """Answer with these, one after the other, and with the last one from then on."""
    return lambda number, _received: (statuses[min(number, len(statuses) - 1)], {}, b"as told")


@contextmanager
def receiving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Run a receiver until the block ends."""
    receiver = Receiver()
    receiver.hold.set()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received = Received(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            with lock:
                number = len(receiver.got)
                receiver.got.append(received)
            receiver.arrived.set()
            receiver.hold.wait(30)
            code, headers, text = receiver.answer(number, received)
            try:
                self.send_response(code)
                for name, value in {"content-length": str(len(text)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if code != 204:
                    self.wfile.write(text)
            except OSError:
                self.close_connection = True  # the caller did not wait for it

        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_words: object) -> None:
            """A client that went away is what some tests want."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "http" if tls is None else "https"
    receiver.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
