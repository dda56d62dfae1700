"""The socket side of the local interface: a small HTTP/1.1 server on loopback or a Unix socket.

One thread a connection, since a device has few local clients and the path of one request is what counts: asyncio with
httptools measured 3.2 times the floor of a bare socket reply plus the raw run, and a web framework more. Every limit is
explicit: connections, bytes of head and body, seconds without progress.
"""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from contextlib import suppress

from shoal_agent.serving.api import problem
from shoal_agent.serving.connection import Connection, Handler, Limits
from shoal_agent.serving.http_message import HttpError, encode_response
from shoal_agent.serving.listen import Listen, open_listener

_log = logging.getLogger(__name__)


class LocalServer:
    """Serves a handler.

    Args:
        handler: Says who answers what comes with a head; must not raise.
        listen: Where.
        limits: What a client may use.
        listener: A socket that listens there already.
    """

    def __init__(
        self, handler: Handler, listen: Listen, *, limits: Limits | None = None, listener: socket.socket | None = None
    ) -> None:
        self._handler = handler
        self._listen = listen
        self._listener = listener
        self._limits = limits or Limits()
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()

    def start(self) -> str:
        """Listen and answer in threads of our own.

        Returns:
            The address to connect to: ``http://127.0.0.1:8130`` or ``unix:/path``.

        Raises:
            LocalError: The address is taken or not ours.
        """
        self._socket, self._listener = self._listener or open_listener(self._listen), None
        self._thread = threading.Thread(target=self._accept, args=(self._socket,), name="shoal-http", daemon=True)
        self._thread.start()
        if self._listen.path is not None:
            return f"unix:{self._listen.path}"
        host = f"[{self._listen.host}]" if ":" in self._listen.host else self._listen.host
        return f"http://{host}:{self._socket.getsockname()[1]}"

    @property
    def is_alive(self) -> bool:
        """Whether connections are accepted."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Close the listener and every connection, and wait for their threads."""
        listener, self._socket = self._socket, None
        if listener is None:
            return
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        if self._listen.path is not None:
            self._listen.path.unlink(missing_ok=True)
        if self._thread is not None:
            self._thread.join(timeout=5)  # first: the connection that it just accepted is one of the open ones then
        with self._lock:
            open_ones = list(self._connections.items())
        for connection, _ in open_ones:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for _, thread in open_ones:
            thread.join(timeout=5)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                if self._socket is None:
                    return
                time.sleep(0.05)  # no file descriptors left: let connections end
                continue
            with self._lock:
                is_full = len(self._connections) >= self._limits.connections
                if not is_full:
                    thread = threading.Thread(target=self._serve, args=(connection,), name="shoal-http", daemon=True)
                    self._connections[connection] = thread
            if is_full:
                _refuse(connection, f"there are {self._limits.connections} connections already")
                continue
            try:
                thread.start()
            except RuntimeError as error:  # the system gives no further thread; this one must go on accepting
                with self._lock:
                    self._connections.pop(connection, None)
                _log.warning("a connection was refused: %s", error)
                _refuse(connection, "this device has no thread left for another connection")

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                if self._listen.path is None:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # by the kernel: Python's own timeouts would cost a poll() at each call
                seconds = struct.pack("ll", self._limits.idle_s, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
                Connection(connection, self._handler, self._limits).serve()
        except OSError as error:
            _log.debug("a local connection ended: %s", error)
        finally:
            with self._lock:
                self._connections.pop(connection, None)


def _refuse(connection: socket.socket, reason: str) -> None:
    error = HttpError(503, reason, hint="keep one connection open and reuse it")
    with suppress(OSError), connection:
        connection.settimeout(0)
        connection.send(encode_response(problem(error), keep_alive=False))
